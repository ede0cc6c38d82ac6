"""A browser that is pushed to: Chromium, whose push service is played by the DevTools protocol.

No test can use the real one: a browser asks it for each subscription (``subscribe`` waits for ever
where it is not reached, and fails at once in a profile that is not kept), and it is Google's. So
that one call is a stub in the page. All else is Chromium's own: the permission, the service worker,
the push event with its data, and the notifications. A click is an event made in the worker, since
there is no screen to click on; such an event may not open a window, so where it leads is noted.
"""

import json
from typing import Any, Final

from tests.browser.engine import PATIENCE, until
from tests.browser.pages import PageServer
from tests.browser.tabs import ChromiumTabs
from tests.support.nodes import Node, wait_until

_SUBSCRIBE: Final = """(subscription) => {
  let there = null;
  const decode = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  PushManager.prototype.getSubscription = async () => there;
  PushManager.prototype.subscribe = async ({ userVisibleOnly, applicationServerKey }) => {
    if (!userVisibleOnly) throw new DOMException("silent", "NotAllowedError");
    window.keys = [...(window.keys ?? []), applicationServerKey];
    there = {
      endpoint: subscription.endpoint,
      options: { applicationServerKey: decode(applicationServerKey).buffer },
      toJSON: () => ({ ...subscription, expirationTime: null }),
      unsubscribe: async () => (there = null, true),
    };
    return there;
  };
}"""

_SHOWN: Final = """async () => {
  const registration = await navigator.serviceWorker.getRegistration("/");
  const shown = (await registration?.getNotifications()) ?? [];
  return shown.map(({ title, body, icon, tag, data }) => ({ title, body, icon, tag, data }));
}"""

_CLICK: Final = """async (title) => {
  const shown = await registration.getNotifications();
  const [notification] = shown.filter((each) => each.title === title);
  const led = [];
  clients.openWindow = async (url) => { led.push(`open ${url}`); };
  WindowClient.prototype.focus = async function () { led.push(`focus ${this.url}`); };
  const event = new NotificationEvent("notificationclick", { notification });
  const work = [];
  Object.defineProperty(event, "waitUntil", { value: (promise) => { work.push(promise); } });
  dispatchEvent(event);
  await Promise.all(work);
  return led;
}"""

_BADGES: Final = """() => {
  self.badges = [];
  const set = navigator.setAppBadge.bind(navigator);
  navigator.setAppBadge = async (number) => { self.badges.push(number); await set(number); };
}"""


class PushedTo:
    """A profile of a user who allows notifications of the application's pages.

    Args:
        tabs: where its tabs are.
        pages: the application, which gets the service worker that the guide has.
        node: which the worker imports its script from.
        subscription: what the browser's push service is to give, as in ``toJSON``.
    """

    def __init__(
        self,
        tabs: ChromiumTabs,
        pages: PageServer,
        node: Node,
        subscription: dict[str, Any] | None = None,
    ) -> None:
        worker = f'importScripts("{node.url}/push-sw.js");'
        pages.put("/push-sw.js", worker, "text/javascript")
        self.context = tabs.context()
        self.context.grant_permissions(["notifications"], origin=pages.url)
        if subscription is not None:
            self.context.add_init_script(f"({_SUBSCRIBE})({json.dumps(subscription)})")
        self._origin = pages.url
        # Stays open, so that there is somebody to ask; it has no client.
        self._looker = tabs.open(
            pages.put("/nothing", "<!doctype html><title>-</title>"), self.context
        )
        self._registrations: set[str] = set()
        self._protocol = self.context.new_cdp_session(self._looker)
        self._protocol.on("ServiceWorker.workerRegistrationUpdated", self._updated)
        self._protocol.send("ServiceWorker.enable")

    def deliver(self, payload: dict[str, Any] | str) -> None:
        """As the push service does with what it decrypted."""
        wait_until(self._registration, "the service worker", PATIENCE)
        data = payload if isinstance(payload, str) else json.dumps(payload)
        told = {"origin": self._origin, "registrationId": self._registration(), "data": data}
        self._protocol.send("ServiceWorker.deliverPushMessage", told)

    def shown(self) -> list[dict[str, Any]]:
        """The notifications on the screen."""
        found: list[dict[str, Any]] = self._looker.evaluate(_SHOWN)
        return found

    def shows(self, *titles: str) -> list[dict[str, Any]]:
        """Wait until these are on the screen, in any order; what they are."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = self.shown()
            return sorted(each["title"] for each in found) == sorted(titles)

        try:
            wait_until(there, f"notifications {titles}", PATIENCE)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; there are {found}") from None
        return found

    def click(self, title: str) -> list[str]:
        """Click on one; where that led: ``open <url>`` or ``focus <url>``."""
        led: list[str] = self._worker.evaluate(_CLICK, title)
        return led

    def watch_badge(self) -> None:
        """Note what is set as the number at the icon from now on."""
        self._worker.evaluate(_BADGES)

    def badges(self) -> list[int]:
        found: list[int] = self._worker.evaluate("() => self.badges")
        return found

    @property
    def _worker(self) -> Any:
        wait_until(lambda: self.context.service_workers, "the service worker", PATIENCE)
        (worker,) = self.context.service_workers
        return worker

    def _updated(self, event: dict[str, Any]) -> None:
        for each in event["registrations"]:
            known = self._registrations
            (known.discard if each["isDeleted"] else known.add)(each["registrationId"])

    def _registration(self) -> str | None:
        until(self._looker, "true")  # events come meanwhile
        return max(self._registrations, default=None)
