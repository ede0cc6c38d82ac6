"""An application that uses the client: it serves its pages, and tokens for its users."""

from urllib.parse import parse_qs, urlsplit

from tests.support.nodes import token
from tests.support.services import HTTPService, QuietHandler

OPERATOR = ("push.admin", "push.publish")
"""The scopes of one who signs in to the console."""

# What a page of a test does: the client is connected by `start`, everything that it tells is kept.
CLIENT_PAGE = """<!doctype html>
<html lang="en"><title>an application</title>
<script type="module">
  const query = new URLSearchParams(location.search);
  const { connect } = await import(query.get("client") + "/client.js");
  window.connect = connect;
  const kept = window.kept = { notifications: [], states: [], gaps: [], errors: [], asked: [] };
  const clock = () => performance.timeOrigin + performance.now();

  // Options are those of `connect`; `tokens`, in place of a token, is the address to get one at.
  window.start = ({ tokens, ...options }) => {
    if (tokens) options.token = async (why) => {
      kept.asked.push(why);
      const answer = await fetch(tokens, { cache: "no-store" });
      if (!answer.ok) throw new Error(`no token: ${answer.status}`);
      return answer.text();
    };
    const push = window.push = connect(options);
    push.on("notification", ({ id, topic, broadcast, data, from, attempt }) =>
      { kept.notifications.push({ id, topic, broadcast, data, from, attempt }); });
    push.on("gap", (gap) => { kept.gaps.push(gap); });
    push.on("error", (error) => { kept.errors.push(String(error?.message ?? error)); });
    push.on("state", (state) => {
      kept.states.push({ at: clock(), ...plain(state) });
    });
  };
  const plain = (state) =>
    ({ ...state, error: state.error && `${state.error.code}: ${state.error.message}` });
  window.state = () => plain(window.push.state);
  window.ready = true;
</script>
"""


class PageServer(HTTPService):
    """Serves pages, and tokens to them."""

    def __init__(self) -> None:
        super().__init__(self._handler())
        self._pages = {"/": (CLIENT_PAGE, "text/html")}
        self.no_tokens = False
        """Whether `/token` is out of order."""
        self.tokens_given = 0

    def put(self, path: str, text: str, media_type: str = "text/html") -> str:
        """Serve a page, or another text; its address."""
        self._pages[path] = (text, media_type)
        return self.url + path

    def tokens(self, user: str, ttl: float = 600, topics: str = "**") -> str:
        """The address of tokens for a user, which lets listen and publish to the topics."""
        return f"{self.url}/token?user={user}&ttl={ttl}&topics={topics}"

    def answer(self, target: str) -> tuple[int, str, str]:
        """The status, media type and body that a request is answered with."""
        url = urlsplit(target)
        if url.path == "/token":
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            if self.no_tokens:
                return 500, "text/plain", "out of order"
            self.tokens_given += 1
            return 200, "text/plain", user_token(query["user"], float(query["ttl"]))
        if url.path == "/favicon.ico":
            return 200, "image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg"/>'
        page = self._pages.get(url.path)
        if page is None:
            return 404, "text/plain", "no such page"
        text, media_type = page
        return 200, media_type, text

    def _handler(outer) -> type[QuietHandler]:  # noqa: N805 - "self" is the request's
        class Request(QuietHandler):
            def do_GET(self) -> None:
                status, media_type, text = outer.answer(self.path)
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", f"{media_type}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Request


def user_token(user: str, ttl: float = 600) -> str:
    """A token with which a user may listen and publish to every topic."""
    return token(user, ttl=ttl, topics={"subscribe": ["**"], "publish": ["**"]})
