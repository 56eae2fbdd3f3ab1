"""Which test stands for which attack: rows 12 to 21, 27 and 28 of the test programme, each with where it is tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

ROWS: Final[Mapping[str, Sequence[str]]] = {
    "12 slow connections": (
        "tests/attacks/test_live.py::test_five_hundred_slow_connections_hold_nobody_up",
        "tests/web/test_serve.py::test_slow_headers_are_cut_off",
        "tests/web/test_serve.py::test_a_slow_body_is_cut_off",
        "tests/link/test_link.py::test_who_says_nothing_is_sent_away",
    ),
    "13 much from little": (
        "tests/attacks/test_live.py::test_a_body_of_a_hundred_megabytes_is_refused",
        "tests/attacks/test_live.py::test_what_was_packed_is_not_unpacked",
        "tests/attacks/test_bombs.py::test_xml_that_unfolds",
        "tests/attacks/test_bombs.py::test_a_packed_attachment_stays_packed",
        "tests/attacks/test_bombs.py::test_a_packed_call_is_refused_as_it_is",
        "tests/attacks/test_bombs.py::test_mail_in_mail_in_mail_is_bounded",
        "tests/connectors/test_mail.py::test_purpose_made_mail_costs_little",
        "tests/connectors/test_xmpp.py::test_a_server_that_is_none_is_unreachable",
    ),
    "14 any input": (
        "tests/attacks/test_parsers.py::test_whatever_comes_is_read_or_refused",
        "tests/attacks/test_parsers.py::test_every_connector_has_a_reader_here",
        "tests/attacks/test_api_schema.py::test_no_call_of_the_api_is_an_error_of_ours",
    ),
    "15 signatures": (
        "tests/contract/test_callers.py::test_forged_calls_are_refused",
        "tests/contract/test_callers.py::test_a_changed_body_is_refused_where_calls_are_signed",
        "tests/contract/test_callers.py::test_old_calls_are_refused",
        "tests/connectors/test_slack.py::test_what_slack_did_not_sign_now_is_refused",
        "tests/connectors/test_wecom.py::test_one_character_changed_is_refused",
        "tests/connectors/test_hooks.py::test_what_is_not_signed_so_is_refused",
    ),
    "16 tokens of Teams": (),
    "17 addresses inside": (
        "tests/attacks/test_addresses.py::test_no_spelling_leads_inside",
        "tests/attacks/test_addresses.py::test_no_name_leads_inside",
        "tests/attacks/test_addresses.py::test_no_disguise_passes_for_a_platforms_own_host",
        "tests/attacks/test_addresses.py::test_every_file_that_calls_out_is_known",
        "tests/web/test_guarded_http.py::test_what_is_not_public_is_refused",
    ),
    "18 paths": (
        "tests/attacks/test_names.py::test_no_files_name_is_a_path_or_hides_anything",
        "tests/attacks/test_live.py::test_no_path_leads_out",
    ),
    "19 arguments of scripts": (
        "tests/flows/test_scripts.py::test_every_payload_arrives_byte_for_byte",
        "tests/flows/test_scripts.py::test_a_wrong_value_is_refused",
    ),
    "20 names": (
        "tests/attacks/test_names.py::test_nobody_becomes_another_by_a_name_that_looks_the_same",
        "tests/attacks/test_names.py::test_a_copied_message_shows_its_authors_name_in_one_short_piece",
        "tests/language/test_characters.py::test_what_is_shown_is_one_short_line_of_visible_characters",
    ),
    "21 mail": (
        "tests/attacks/test_mail_loops.py::test_two_of_us_stop_after_one_answer",
        "tests/attacks/test_mail_loops.py::test_automatic_mail_is_not_answered",
        "tests/hub/test_mail_loops.py::test_the_same_words_are_answered_twice_and_run_nothing_after_that",
        "tests/hub/test_mail_loops.py::test_a_mailbox_that_never_says_the_same_stops_too",
        "tests/connectors/test_mail.py::test_no_value_adds_a_header",
        "tests/hub/test_messages.py::test_a_stranger_is_told_once_a_day",
        "tests/hub/test_bridges.py::test_a_ring_of_bridges_ends",
    ),
    "22 records of the log": (
        "tests/attacks/test_live.py::test_nothing_that_is_sent_makes_a_record_of_its_own",
        "tests/test_log_lines.py::test_a_break_of_any_kind_makes_no_second_record",
        "tests/test_log_lines.py::test_an_errors_text_makes_no_second_record",
    ),
    "27 slow expressions": (
        "tests/attacks/test_regexes.py::test_no_expression_is_slow",
        "tests/attacks/test_regexes.py::test_a_slow_expression_would_be_found",
    ),
    "28 words that pretend to be orders": (
        "tests/attacks/test_live.py::test_no_words_of_others_make_anything_run",
        "tests/attacks/test_live.py::test_the_trap_would_close",
        "tests/hub/test_messages.py::test_plain_language_confirms_a_write",
    ),
    "other pages": (
        "tests/attacks/test_live.py::test_another_page_can_do_nothing_with_our_session",
        "tests/web/test_attacks.py::test_a_session_acts_only_from_our_own_page",
        "tests/web/test_serve.py::test_a_page_of_nobody_or_of_elsewhere_hears_nothing",
    ),
}
"""An empty row is one that does not apply: there is no connector for Teams, so no token of Teams is read."""
