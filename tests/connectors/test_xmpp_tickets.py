"""Which stanzas the XMPP server may forget: all up to the first that is not settled."""

from __future__ import annotations

from slixmpp.plugins.xep_0198.stream_management import MAX_SEQ

from connectors._xmpp_client import Ticket, Tickets


def _came(tickets: Tickets, number: int) -> list[Ticket]:
    made = []
    for _ in range(number):
        tickets.add()
        assert tickets.current is not None
        made.append(tickets.current)
    return made


def test_what_is_settled_out_of_order_counts_when_all_before_it_is() -> None:
    tickets = Tickets()
    first, second, third = _came(tickets, 3)
    assert (tickets.settle(second), tickets.handled) == (False, 0)
    assert (tickets.settle(first), tickets.handled) == (True, 2)
    assert (tickets.settle(first), tickets.settle(None), tickets.handled) == (False, False, 2)
    assert (tickets.settle(third), tickets.handled) == (True, 3)


def test_what_a_lost_connection_leaves_counts_no_more() -> None:
    tickets = Tickets()
    first, second = _came(tickets, 2)
    tickets.settle(first)
    tickets.forget()
    assert tickets.current is None
    assert (tickets.settle(second), tickets.handled) == (False, 1)
    (third,) = _came(tickets, 1)
    assert (tickets.settle(third), tickets.handled) == (True, 2)


def test_the_count_begins_anew_as_the_protocol_has_it() -> None:
    tickets = Tickets()
    tickets.handled = MAX_SEQ - 1
    (ticket,) = _came(tickets, 1)
    assert (tickets.settle(ticket), tickets.handled) == (True, 0)
