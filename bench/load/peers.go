package main

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
)

// What the peers speak. Users have a channel each, which they are subscribed to by their handshake,
// or by a message where there is no other way.

// centrifugo: Centrifugo's JSON protocol, of version 2, and its HTTP API. The server subscribes each
// user to a personal channel; the secret is also the key of the API.
type centrifugo struct {
	secret, topic string
	subscribe     []byte
	headers       string
	body          []byte
}

func newCentrifugo(todo *step) *centrifugo {
	return &centrifugo{
		secret: todo.Secret, topic: todo.Topic,
		subscribe: []byte(`{"id":2,"subscribe":{"channel":"topic:` + todo.Topic + `"}}`),
		headers:   "Content-Type: application/json\r\nX-API-Key: " + todo.Secret + "\r\n",
	}
}

func (p *centrifugo) handshake(string) []byte {
	return upgradeRequest("/connection/websocket", "")
}

func (p *centrifugo) opened(s *sockets, c *conn) {
	token := mint(p.secret, map[string]any{"sub": s.user(c)})
	s.say(c, []byte(`{"id":1,"connect":{"token":"`+token+`"}}`))
}

func (p *centrifugo) message(s *sockets, c *conn, payload []byte) error {
	for len(payload) > 0 {
		line := payload
		if end := bytes.IndexByte(payload, '\n'); end >= 0 {
			line, payload = payload[:end], payload[end+1:]
		} else {
			payload = nil
		}
		switch {
		case bytes.HasPrefix(line, []byte(`{"push":{`)):
			if !bytes.Contains(line, []byte(`"pub":{`)) {
				return fmt.Errorf("%s", line)
			}
			s.notice(line)
		case bytes.Equal(line, []byte("{}")):
			s.say(c, line) // a ping
		case bytes.HasPrefix(line, []byte(`{"id":1,"connect":{`)):
			if p.topic == "" {
				s.isReady(c)
			} else {
				s.say(c, p.subscribe)
			}
		case bytes.HasPrefix(line, []byte(`{"id":2,"subscribe":{`)):
			s.isReady(c)
		default:
			return fmt.Errorf("%s", line)
		}
	}
	return nil
}

func (p *centrifugo) request(to []byte, kind string, targets []string, data []byte) []byte {
	channel := "topic:"
	if kind == "user" {
		channel = "user:#"
	}
	if len(targets) == 1 {
		p.body = append(append(append(p.body[:0], `{"channel":"`...), channel...), targets[0]...)
		p.body = append(append(append(p.body, `","data":`...), data...), '}')
		return appendPost(to, "/api/publish", p.headers, p.body)
	}
	p.body = append(p.body[:0], `{"parallel":true,"commands":[`...)
	for i, target := range targets {
		if i > 0 {
			p.body = append(p.body, ',')
		}
		p.body = append(append(append(p.body, `{"publish":{"channel":"`...), channel...), target...)
		p.body = append(append(append(p.body, `","data":`...), data...), `}}`...)
	}
	return appendPost(to, "/api/batch", p.headers, append(p.body, `]}`...))
}

func (p *centrifugo) accepted(body []byte, asked int) int {
	return asked - bytes.Count(body, []byte(`"error"`))
}

// socketIO: version 5 of Socket.IO's protocol over version 4 of Engine.IO's, and the publish path of
// the server in bench/peers/socketio.
type socketIO struct {
	secret, topic, headers string
	body                   []byte
}

func newSocketIO(todo *step) *socketIO {
	token := mint(todo.Secret, map[string]any{"sub": "backend", "scope": "push.publish"})
	return &socketIO{
		secret: todo.Secret, topic: todo.Topic,
		headers: "Content-Type: application/json\r\nAuthorization: Bearer " + token + "\r\n",
	}
}

func (p *socketIO) handshake(string) []byte {
	return upgradeRequest("/socket.io/?EIO=4&transport=websocket", "")
}

func (p *socketIO) opened(*sockets, *conn) {}

func (p *socketIO) message(s *sockets, c *conn, payload []byte) error {
	switch {
	case bytes.HasPrefix(payload, []byte("42")):
		s.notice(payload)
	case bytes.Equal(payload, []byte("2")):
		s.say(c, []byte("3")) // a ping
	case bytes.HasPrefix(payload, []byte("0{")):
		token := mint(p.secret, map[string]any{"sub": s.user(c)})
		s.say(c, []byte(`40{"token":"`+token+`","topic":"`+p.topic+`"}`))
	case bytes.HasPrefix(payload, []byte("40{")):
		s.isReady(c)
	default:
		return fmt.Errorf("%s", payload)
	}
	return nil
}

func (p *socketIO) request(to []byte, kind string, targets []string, data []byte) []byte {
	p.body = append(p.body[:0], '[')
	for i, target := range targets {
		if i > 0 {
			p.body = append(p.body, ',')
		}
		p.body = append(append(append(append(p.body, `{"room":"`...), kind...), ':'), target...)
		p.body = append(append(append(p.body, `","data":`...), data...), '}')
	}
	return appendPost(to, "/publish", p.headers, append(p.body, ']'))
}

func (p *socketIO) accepted(_ []byte, asked int) int { return asked }

// nchan: a location that subscribes and one that publishes; nobody is asked who they are.
type nchan struct{ topic string }

func (p nchan) handshake(user string) []byte {
	if p.topic != "" {
		return upgradeRequest("/sub?id=topic-"+p.topic, "")
	}
	return upgradeRequest("/sub?id=user-"+user, "")
}

func (p nchan) opened(s *sockets, c *conn) { s.isReady(c) }

func (p nchan) message(s *sockets, _ *conn, payload []byte) error {
	s.notice(payload)
	return nil
}

func (p nchan) request(to []byte, kind string, targets []string, data []byte) []byte {
	return appendPost(to, "/pub?id="+kind+"-"+targets[0], "Content-Type: application/json\r\n", data)
}

func (p nchan) accepted(_ []byte, asked int) int { return asked }

// pusher: version 7 of Pusher's protocol with private channels, as Sockudo and others serve it. The
// app's id and key are "bench"; the signature of a subscription stands for a token.
type pusher struct {
	secret, topic string
	body          []byte
}

const pusherApp = "bench"

func newPusher(todo *step) *pusher { return &pusher{secret: todo.Secret, topic: todo.Topic} }

func (p *pusher) handshake(string) []byte {
	return upgradeRequest("/app/"+pusherApp+"?protocol=7&client=load&version=1", "")
}

func (p *pusher) opened(*sockets, *conn) {}

func (p *pusher) message(s *sockets, c *conn, payload []byte) error {
	switch {
	case bytes.Contains(payload, []byte(`"pusher:connection_established"`)):
		id := between(payload, `\"socket_id\":\"`, `\"`)
		channel := "private-user-" + s.user(c)
		if p.topic != "" {
			channel = "private-topic-" + p.topic
		}
		auth := pusherApp + ":" + signHex(p.secret, string(id)+":"+channel)
		s.say(c, []byte(`{"event":"pusher:subscribe","data":{"channel":"`+channel+`","auth":"`+auth+`"}}`))
	case bytes.Contains(payload, []byte(`"pusher_internal:subscription_succeeded"`)):
		s.isReady(c)
	case bytes.Contains(payload, []byte(`"pusher:ping"`)):
		s.say(c, []byte(`{"event":"pusher:pong","data":{}}`))
	case bytes.Contains(payload, []byte(`"pusher:error"`)):
		return fmt.Errorf("%s", payload)
	default:
		s.notice(payload)
	}
	return nil
}

func (p *pusher) request(to []byte, kind string, targets []string, data []byte) []byte {
	text := bytes.ReplaceAll(data, []byte(`"`), []byte(`\"`)) // an event's data is a string
	path := "/apps/" + pusherApp + "/events"
	p.body = p.body[:0]
	if len(targets) > 1 {
		path = "/apps/" + pusherApp + "/batch_events"
		p.body = append(p.body, `{"batch":[`...)
	}
	for i, target := range targets {
		if i > 0 {
			p.body = append(p.body, ',')
		}
		p.body = append(append(append(append(p.body, `{"name":"n","channel":"private-`...), kind...), '-'), target...)
		p.body = append(append(append(p.body, `","data":"`...), text...), `"}`...)
	}
	if len(targets) > 1 {
		p.body = append(p.body, `]}`...)
	}
	sum := md5.Sum(p.body)
	query := "auth_key=" + pusherApp + "&auth_timestamp=" + strconv.FormatInt(time.Now().Unix(), 10) +
		"&auth_version=1.0&body_md5=" + hex.EncodeToString(sum[:])
	query += "&auth_signature=" + signHex(p.secret, "POST\n"+path+"\n"+query)
	return appendPost(to, path+"?"+query, "Content-Type: application/json\r\n", p.body)
}

func (p *pusher) accepted(_ []byte, asked int) int { return asked }
