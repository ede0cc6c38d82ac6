"""What a backend in Python does, with the client that openapi-python-client makes of the document.

It publishes to one user, to a list and in a batch, and reads it by a poll and in the history.
"""

import json
import sys
from typing import assert_type

from pushsvc_client import AuthenticatedClient
from pushsvc_client.api.look import list_notifications
from pushsvc_client.api.publish import publish, publish_batch
from pushsvc_client.api.receive import ack, poll
from pushsvc_client.models import (
    Accepted,
    AckBody,
    Acked,
    Batch,
    BatchResults,
    Notification,
    NotificationMessage,
    NotificationPage,
    Poll,
    Problem,
    To,
    UserResults,
)

url, backend_token, user_token, user, other = sys.argv[1:]
with (
    AuthenticatedClient(base_url=url, token=backend_token) as backend,
    AuthenticatedClient(base_url=url, token=user_token) as device,
):
    note = Notification(to=To(user=user), event="order.shipped", data={"order": 17})
    published = publish.sync(client=backend, body=note, idempotency_key=f'"order-17 {user}"')
    assert_type(published, Accepted | UserResults | Problem | None)
    assert isinstance(published, Accepted), published

    listed = publish.sync(
        client=backend, body=Notification(to=To(users=[user, other]), data="for both")
    )
    assert isinstance(listed, UserResults), listed

    two = [
        Notification(to=To(user=user), data=1),
        Notification(to=To(topic="no topic"), data=2),
    ]
    batch = publish_batch.sync(client=backend, body=Batch(notifications=two))
    assert_type(batch, BatchResults | Problem | None)
    assert isinstance(batch, BatchResults), batch

    polled = poll.sync(client=device, device="phone", wait=5, topic=["news"])
    assert_type(polled, Poll | Problem | None)
    assert isinstance(polled, Poll), polled
    received = [each for each in polled.messages if isinstance(each, NotificationMessage)]

    acked = ack.sync(client=device, body=AckBody(device="phone", id=received[-1].id))
    assert isinstance(acked, Acked), acked

    history = list_notifications.sync(user, client=backend, limit=10)
    assert_type(history, NotificationPage | Problem | None)
    assert isinstance(history, NotificationPage), history

    refused = publish.sync(client=device, body=note)
    assert isinstance(refused, Problem), refused

json.dump(
    {
        "published": published.id,
        "listed": [isinstance(each, Accepted) for each in listed.results],
        "batch": [each.status if isinstance(each, Problem) else "id" for each in batch.results],
        "polled": [each.data for each in received],
        "acked": acked.acked == received[-1].id,
        "history": [each.data for each in history.notifications],
        "acknowledged": [[by.device for by in each.acked] for each in history.notifications],
        "refused": refused.type_,
    },
    sys.stdout,
)
