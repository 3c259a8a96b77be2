"""One commit for the changes of many threads: a fleet that reports at once must not queue for the disk.

Whoever comes while a commit is under way waits, and the first of those who wait commits for all of them.
Nobody is told "stored" before it is, and nobody waits for more than the commit under way and its own.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar, cast

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models

T = TypeVar("T")
# The lock is held for as long as a group takes; others that write must get in between.
_MOST = 64


class _Change(Generic[T]):
    def __init__(self, target_id: str, work: Callable[[Session], T]) -> None:
        self.target_id = target_id
        self.work = work
        self.over = False
        # Released when this change is done, or when its thread is to lead the next group. A bare lock: with
        # many threads, waking each through anything in Python takes as long as the commit.
        self.turn = threading.Lock()
        self.turn.acquire()
        self.result: T | None = None
        self.error: BaseException | None = None

    def do(self, session: Session) -> None:
        self.result = self.work(session)


class GroupCommit:
    """Changes to targets, each whole or not at all, several in one transaction of `write`."""

    def __init__(
        self,
        write: Callable[[], AbstractContextManager[Session]],
        *,
        not_again: type[Exception],
        gap_s: float = 0.0,
    ) -> None:
        """`gap_s` is how long the database is left to others between two groups."""
        self._write = write
        self._not_again = not_again
        self._gap_s = gap_s
        self._waiting: deque[_Change[object]] = deque()
        self._lock = threading.Lock()
        self._is_led = False

    def commit(self, target_id: str, work: Callable[[Session], T]) -> T:
        """Run `work` with its target locked; return what it returned when that is committed.

        What `work` raises undoes its own change alone, and is raised here. It may run twice, so it must
        change nothing but rows.
        """
        mine = _Change(target_id, work)
        with self._lock:
            self._waiting.append(cast("_Change[object]", mine))
            leads, self._is_led = not self._is_led, True
        if not leads:
            mine.turn.acquire()
        if not mine.over:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return cast("T", mine.result)

    def _lead(self) -> None:
        """Carry out those who wait, this thread's own change first, and leave what came meanwhile to the
        first of those."""
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
        try:
            self._carry_out(group)
        finally:
            for change in group[1:]:
                change.turn.release()
            if self._waiting:
                # Other processes wait for the database's lock by looking now and then: without a gap they
                # never find it free.
                time.sleep(self._gap_s)
            with self._lock:
                self._is_led = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].turn.release()

    def _carry_out(self, group: list[_Change[object]]) -> None:
        try:
            again = group if len(group) == 1 else self._together(group)
            for change in again:
                self._alone(change)
        finally:
            for change in group:
                change.over = True

    def _together(self, group: list[_Change[object]]) -> list[_Change[object]]:
        """Those that are to be done again, each for itself."""
        again = []
        is_open = False
        try:
            with self._write() as session:
                _lock(session, {change.target_id for change in group})
                is_open = True
                for change in group:
                    try:
                        with session.begin_nested():
                            change.do(session)
                    except IntegrityError:
                        again.append(change)  # somebody else wrote the same at this moment
                    except SQLAlchemyError:
                        raise  # a full disk or a deadlock ends the whole transaction, whatever is tried next
                    except Exception as error:  # noqa: BLE001 - raised again where it belongs
                        change.error = error
        except self._not_again as error:
            for change in group:
                change.error = error
            return []
        except Exception as error:  # noqa: BLE001 - raised again in its own thread, or where it comes again
            # A database that nobody gets hold of is no better for each alone. But one that spoils the
            # transaction must not take the others with it.
            for change in group:
                change.error = None if is_open else error
            return group if is_open else []
        return again

    def _alone(self, change: _Change[object]) -> None:
        for last in (False, True):
            try:
                with self._write() as session:
                    _lock(session, {change.target_id})
                    change.do(session)
                return
            except IntegrityError as error:
                # Now it is known, whatever came over another transport at the same moment.
                if last:
                    change.error = error
            except BaseException as error:  # noqa: BLE001 - raised again in its own thread
                change.error = error
                return


def _lock(session: Session, target_ids: set[str]) -> None:
    """In the order of their ids, as everybody locks targets, so that no two groups wait for each other."""
    if session.get_bind().dialect.name != "sqlite":  # there a transaction that writes is the only one
        session.execute(
            select(models.Target.id)
            .where(models.Target.id.in_(target_ids))
            .order_by(models.Target.id)
            .with_for_update()
        ).all()
