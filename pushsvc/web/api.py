"""The paths of the public port."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import tornado.web

from pushsvc.protocol.read_state import Verb
from pushsvc.web import event_stream, pages, push, scheduled, topics, user_data, users, websocket
from pushsvc.web.base import NotFoundHandler
from pushsvc.web.cors import Origins
from pushsvc.web.documents import AsyncAPIHandler, DocsHandler, HomeHandler, OpenAPIHandler
from pushsvc.web.operation import Operation, path_part
from pushsvc.web.poll import PollOperation
from pushsvc.web.publish import BatchOperation, PublishOperation
from pushsvc.web.receipts import ReceiptsHandler
from pushsvc.web.revocations import DisconnectOperation, RevocationsOperation
from pushsvc.web.tickets import TicketsOperation


def _demo(admin_url: str) -> list[Any]:
    """The paths of the public port that lead to the demo, in development."""
    to = {"url": admin_url + "{0}", "permanent": False}
    return [(r"(/demo(?:/[a-z]+)?)/?", tornado.web.RedirectHandler, to)]


USERS: Final = "/v1/users/"
DEVICES: Final = push.DEVICES + "/"
_DEVICES: Final = DEVICES.lstrip("/")


class Operations:
    """Which operation a path is of.

    Args:
        whole: by the whole path.
        of_users: those of a user that the path names, by what follows its name.
        of_devices: those of a device that the path names behind the user, by what follows it.
    """

    def __init__(
        self,
        whole: Mapping[str, Operation],
        of_users: Mapping[str, Operation],
        of_devices: Mapping[str, Operation] = MappingProxyType({}),
    ) -> None:
        self.whole = whole
        self.of_users = of_users
        self.of_devices = of_devices

    def find(self, path: str) -> tuple[Operation, str | None, str | None] | None:
        """The operation, the user and the device that the path names; None where it is of none.

        Args:
            path: as it was sent, without the query.

        Raises:
            InvalidRequest: it is not percent-encoded UTF-8.
        """
        operation = self.whole.get(path)
        if operation is not None:
            return operation, None, None
        if not path.startswith(USERS):
            return None
        user, slash, rest = path[len(USERS) :].partition("/")
        operation, device = self.of_users.get(slash + rest), ""
        if operation is None and rest.startswith(_DEVICES):
            device, slash, rest = rest[len(_DEVICES) :].partition("/")
            operation = self.of_devices.get(slash + rest) if device else None
        if operation is None or not user:
            return None
        named = path_part(path, unquote_to_bytes(user))
        return operation, named, path_part(path, unquote_to_bytes(device)) if device else None


@dataclass(frozen=True, slots=True)
class Routes:
    """The operations, and what the handlers of each other kind are made with."""

    publish: PublishOperation
    batch: BatchOperation
    ack: users.AckOperation
    read: users.ReadStateOperation
    unread: users.ReadStateOperation
    archive: users.ReadStateOperation
    unarchive: users.ReadStateOperation
    push_ways: push.PushOperation
    pushed: push.PushedOperation
    push_read: push.PushReadOperation
    devices: push.DevicesOperation
    device_push: push.DevicePushOperation
    poll: PollOperation
    tickets: TicketsOperation
    revocations: RevocationsOperation
    disconnect: DisconnectOperation
    users: dict[str, Any]
    recall: dict[str, Any]
    topics: dict[str, Any]
    cancel: dict[str, Any]
    receipts: dict[str, Any]
    user_data: dict[str, Any]

    def operations(self) -> Operations:
        """What answers a request, by its path."""
        of_users: dict[str, Operation] = {
            users.DISCONNECT: self.disconnect,
            f"/{Verb.READ}": self.read,
            f"/{Verb.UNREAD}": self.unread,
            f"/{Verb.ARCHIVE}": self.archive,
            f"/{Verb.UNARCHIVE}": self.unarchive,
            push.DEVICES: self.devices,
        }
        return Operations(
            {
                "/v1/notifications": self.publish,
                "/v1/notifications/batch": self.batch,
                users.ACK: self.ack,
                "/v1/poll": self.poll,
                "/v1/tickets": self.tickets,
                "/v1/revocations": self.revocations,
                push.PUSH: self.push_ways,
                push.NOTIFICATION: self.pushed,
                push.READ_ONE: self.push_read,
                push.DEVICE_PUSH_BY_QUERY: self.device_push,
                **{f"/v1/user{end}": operation for end, operation in of_users.items()},
            },
            of_users,
            {push.DEVICE_PUSH: self.device_push},
        )

    def rules(self) -> list[Any]:
        """The paths of the public port that are no operations."""
        return [
            (websocket.PATH, websocket.WebSocketHandler),
            (event_stream.PATH, event_stream.StreamHandler),
            *(rule for of in users.NAMED for rule in self._of_user(of)),
            *(
                (of + topics.PRESENCE, topics.TopicPresenceHandler, self.topics)
                for of in topics.NAMED
            ),
            *(
                (of + users.NOTIFICATION, scheduled.TopicCancelHandler, self.cancel)
                for of in topics.NAMED
            ),
            (scheduled.BROADCAST, scheduled.CancelHandler, self.cancel),
            (r"/v1/receipts", ReceiptsHandler, self.receipts),
            (r"/openapi\.json", OpenAPIHandler),
            (r"/asyncapi\.json", AsyncAPIHandler),
            (r"/docs", DocsHandler),
            *pages.client(),
            (r"/", HomeHandler),
        ]

    def _of_user(self, named: str) -> list[Any]:
        """The paths below what names a user."""
        return [
            (named + users.NOTIFICATIONS, users.NotificationsHandler, self.users),
            (named + users.NOTIFICATION, users.RecallHandler, self.recall),
            (named + users.PRESENCE, users.PresenceHandler, self.users),
            (named, user_data.EraseHandler, self.user_data),
            (named + user_data.EXPORT, user_data.ExportHandler, self.user_data),
        ]


def application(
    routes: Routes, origins: Origins, demo: str | None = None
) -> tornado.web.Application:
    """What serves the paths of the public port that are no operations.

    Args:
        routes: what it is made of.
        origins: of pages that may call.
        demo: the port that serves the demo, in development; ``/demo`` leads there.
    """
    return tornado.web.Application(
        [*routes.rules(), *([] if demo is None else _demo(demo))],
        default_handler_class=NotFoundHandler,
        log_function=lambda _: None,
        origins=origins,
    )
