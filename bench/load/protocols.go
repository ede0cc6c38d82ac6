package main

import (
	"bytes"
	"fmt"
	"strconv"
)

// A protocol is how a server is talked to.
type protocol interface {
	// handshake is the request that opens a user's WebSocket.
	handshake(user string) []byte
	// opened is called once it is open, message with each message.
	opened(s *sockets, c *conn)
	message(s *sockets, c *conn, payload []byte) error
	// request is the publish request of one notification to each target, or of one where kind is not
	// "user"; data is JSON.
	request(to []byte, kind string, targets []string, data []byte) []byte
	// accepted is how many notifications of a request were taken, as the answer's body says.
	accepted(body []byte, asked int) int
}

func protocolOf(todo *step) (protocol, error) {
	switch todo.Protocol {
	case "bare":
		return bare{}, nil
	case "pushsvc":
		return newPushsvc(todo), nil
	case "centrifugo":
		return newCentrifugo(todo), nil
	case "socketio":
		return newSocketIO(todo), nil
	case "nchan":
		return nchan{todo.Topic}, nil
	case "pusher":
		return newPusher(todo), nil
	}
	return nil, fmt.Errorf("no such protocol: %q", todo.Protocol)
}

// appendPost appends a request to a server of HTTP.
func appendPost(to []byte, path, headers string, body []byte) []byte {
	to = append(to, "POST "...)
	to = append(to, path...)
	to = append(to, " HTTP/1.1\r\nHost: 127.0.0.1\r\n"...)
	to = append(to, headers...)
	to = append(to, "Content-Length: "...)
	to = strconv.AppendInt(to, int64(len(body)), 10)
	to = append(to, "\r\n\r\n"...)
	return append(to, body...)
}

// bare is a server of WebSockets that says nothing.
type bare struct{}

func (bare) handshake(string) []byte                           { return upgradeRequest("/v1/ws", "") }
func (bare) opened(s *sockets, c *conn)                        { s.isReady(c) }
func (bare) message(s *sockets, _ *conn, payload []byte) error { s.notice(payload); return nil }
func (bare) request([]byte, string, []string, []byte) []byte   { return nil }
func (bare) accepted([]byte, int) int                          { return 0 }

// pushsvc: every notification of a mailbox and of the broadcast is acknowledged.
type pushsvc struct {
	secret, topic string
	silent        bool
	subscribe     []byte
	publishes     string // the headers of a publisher
	body, ack     []byte
}

const audience = "pushsvc"

func newPushsvc(todo *step) *pushsvc {
	token := mint(todo.Secret, map[string]any{"sub": "backend", "aud": audience, "scope": "push.publish"})
	return &pushsvc{
		secret: todo.Secret, topic: todo.Topic, silent: todo.Silent,
		subscribe: []byte(`{"type":"subscribe","ref":1,"topic":"` + todo.Topic + `"}`),
		publishes: "Authorization: Bearer " + token + "\r\n",
	}
}

func (p *pushsvc) handshake(user string) []byte {
	claims := map[string]any{"sub": user, "aud": audience}
	if p.topic != "" {
		claims["topics"] = map[string]any{"subscribe": []string{p.topic}}
	}
	return upgradeRequest("/v1/ws", "Authorization: Bearer "+mint(p.secret, claims)+"\r\n")
}

func (p *pushsvc) opened(*sockets, *conn) {}

var (
	pushsvcNotification = []byte(`{"type":"notification","id":"`)
	pushsvcWelcome      = []byte(`{"type":"welcome"`)
	pushsvcReply        = []byte(`{"type":"reply"`)
	pushsvcError        = []byte(`{"type":"error"`)
	pushsvcOfTopic      = []byte(`"topic":"`)
	pushsvcBroadcast    = []byte(`"broadcast":true`)
	pushsvcData         = []byte(`"data":`)
)

func (p *pushsvc) message(s *sockets, c *conn, payload []byte) error {
	switch {
	case bytes.HasPrefix(payload, pushsvcNotification):
		s.notice(payload)
		if p.silent {
			return nil
		}
		id := payload[len(pushsvcNotification):]
		end := bytes.IndexByte(id, '"')
		envelope := payload
		if data := bytes.Index(payload, pushsvcData); data >= 0 {
			envelope = payload[:data]
		}
		if end < 0 || bytes.Contains(envelope, pushsvcOfTopic) {
			return nil
		}
		p.ack = append(append(p.ack[:0], `{"type":"ack","id":"`...), id[:end]...)
		if bytes.Contains(envelope, pushsvcBroadcast) {
			p.ack = append(p.ack, `","broadcast":true}`...)
		} else {
			p.ack = append(p.ack, `"}`...)
		}
		s.say(c, p.ack)
	case bytes.HasPrefix(payload, pushsvcWelcome):
		if p.topic == "" {
			s.isReady(c)
		} else {
			s.say(c, p.subscribe)
		}
	case bytes.HasPrefix(payload, pushsvcReply):
		s.isReady(c)
	case bytes.HasPrefix(payload, pushsvcError):
		return fmt.Errorf("%s", payload)
	}
	return nil
}

func (p *pushsvc) request(to []byte, kind string, targets []string, data []byte) []byte {
	p.body = p.body[:0]
	for i, target := range targets {
		if i > 0 {
			p.body = append(p.body, '\n')
		}
		p.body = append(p.body, `{"to":{"`...)
		p.body = append(p.body, kind...)
		if kind == "broadcast" {
			p.body = append(p.body, `":true},"data":`...)
		} else {
			p.body = append(append(append(p.body, `":"`...), target...), `"},"data":`...)
		}
		p.body = append(append(p.body, data...), '}')
	}
	if len(targets) == 1 {
		return appendPost(to, "/v1/notifications", p.publishes+"Content-Type: application/json\r\n", p.body)
	}
	return appendPost(to, "/v1/notifications/batch", p.publishes+"Content-Type: application/x-ndjson\r\n", p.body)
}

func (p *pushsvc) accepted(body []byte, _ int) int { return bytes.Count(body, []byte(`"id":"`)) }
