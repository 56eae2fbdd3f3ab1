"""Airflow's peer of order_status: one PythonOperator that looks an order up and makes its table. Airflow loads it."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
from contextlib import closing
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator  # type: ignore[import-not-found]
from airflow.sdk import DAG  # type: ignore[import-not-found]


def look_up(params: dict[str, Any]) -> str:
    """The order's state and the way of its parcel as a table, from the same sample as ours."""
    number = (params["order_id"],)
    with closing(sqlite3.connect(os.environ["BENCH_ORDERS"])) as database:
        (state,) = database.execute("select state from orders where id = ?", number).fetchone()
        legs = database.execute(
            "select at, place, event from legs where order_id = ? order by position", number
        )
        table = io.StringIO()
        csv.writer(table).writerows([("time (UTC)", "place", "event"), *legs])
    return f"Order {number[0]}: {state}\n{table.getvalue()}"


with DAG("order_status", schedule=None, params={"order_id": 1024}, is_paused_upon_creation=False):
    PythonOperator(task_id="look_up", python_callable=look_up)
