"""The operations that listen and acknowledge."""

from typing import Final

from pushsvc import errors
from pushsvc.web.poll import MAX_WAIT, WAIT
from pushsvc.web.spec.operation import (
    AFTER,
    DELIVERED,
    DEVICE,
    EVENTS,
    JSON,
    LAST_EVENT_ID,
    LISTEN,
    TICKET,
    TOPICS,
    WITH_BODY,
    WITH_TOKEN,
    Answer,
    Body,
    Operation,
    query,
)
from pushsvc.web.spec.schemas import number, ref, text

RECEIVING: Final = (
    Operation(
        method="GET",
        path="/v1/ws",
        id="socket",
        tag="receive",
        summary="Listen on a WebSocket",
        description=(
            "Subprotocols `pushsvc.v1.json` (text frames) and `pushsvc.v1.msgpack` (binary "
            "frames). The token is sent as a bearer, as an offered subprotocol `bearer.<token>`, "
            "or as a ticket. The messages are in the AsyncAPI document."
        ),
        parameters=(DEVICE,),
        answers=(Answer(status=101, meaning="The socket is open; `welcome` follows."),),
        errors=(*LISTEN, errors.UpgradeRequired),
        security=("bearer", TICKET),
    ),
    Operation(
        method="GET",
        path="/v1/stream",
        id="stream",
        tag="receive",
        summary="Listen on an event stream",
        description=(
            "Server-Sent Events: `data` is a message as on the socket, `id` the position in all "
            "that is listened to, comments are signs of life. It ends with `closed`."
        ),
        parameters=(DEVICE, TOPICS, LAST_EVENT_ID, AFTER),
        answers=(
            Answer(
                status=200,
                meaning="Events, until the client or the node ends them.",
                schema=text("events"),
                example="id: u=1764000000123-0\ndata: "
                '{"type":"notification","id":"1764000000123-0","time":"2025-11-24T16:00:00.123Z",'
                '"data":1}\n\n',
                media_type=EVENTS,
            ),
        ),
        errors=LISTEN,
        security=("bearer", TICKET),
    ),
    Operation(
        method="GET",
        path="/v1/poll",
        id="poll",
        tag="receive",
        summary="Ask for messages, and wait for one",
        description="Answers at once if there is something, else when something comes.",
        parameters=(
            DEVICE,
            TOPICS,
            query(
                "wait",
                number(
                    f"seconds to wait for a message; {WAIT:g} without it",
                    minimum=0,
                    maximum=MAX_WAIT,
                ),
                25,
            ),
            LAST_EVENT_ID,
            AFTER,
        ),
        answers=(
            Answer(
                status=200,
                meaning="Messages as on the socket, or none.",
                schema=ref("Poll"),
                example={
                    "messages": [DELIVERED],
                    "position": "u=1764000000123-0,b=0-0",
                    "unread": 1,
                },
            ),
        ),
        errors=LISTEN,
        security=("bearer", TICKET),
    ),
    Operation(
        method="POST",
        path="/v1/ack",
        id="ack",
        tag="receive",
        summary="Acknowledge, for event streams and polling",
        description="Cumulative, as on the socket: this notification and all before it are done.",
        bodies={
            JSON: Body(
                schema=ref("AckBody"),
                examples={"ack": {"device": "phone", "id": "1764000000123-0"}},
            )
        },
        answers=(
            Answer(
                status=200,
                meaning="The device's position.",
                schema=ref("Acked"),
                example={"acked": "1764000000123-0"},
            ),
        ),
        errors=(*LISTEN, *WITH_BODY, errors.RateLimited),
    ),
    Operation(
        method="POST",
        path="/v1/tickets",
        id="ticket",
        tag="receive",
        summary="Get a ticket for the token",
        description=(
            "For clients that can set no header: `?ticket=` on `/v1/ws`, `/v1/stream` and "
            "`/v1/poll` stands for the token, once and within 30 seconds. No body is needed."
        ),
        answers=(
            Answer(
                status=201,
                meaning="A ticket; `expires_in` in seconds.",
                schema=ref("Ticket"),
                example={"ticket": "H3M0w0yM2nKq0Tt3bq9Jv3h8f2v1cXb4l5u6i7o8p9Q", "expires_in": 30},
            ),
        ),
        errors=(*WITH_TOKEN, *WITH_BODY, errors.OriginRefused, errors.RateLimited),
    ),
)
