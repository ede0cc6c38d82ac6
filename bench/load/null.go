package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"syscall"
)

// A nullServer does the least that a server of pushsvc's protocol could do: it believes every token,
// stores nothing, and hands what is published to whom it is for. How fast the generator is with it
// is how fast the generator is.
type nullServer struct {
	loop  *loop
	users map[string]*conn
	names map[*conn]string
	out   []byte
	body  []byte
}

func serveNull(l *loop) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := syscall.Listen(fd, 4096); err != nil {
		return err
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		return err
	}
	n := &nullServer{loop: l, users: map[string]*conn{}, names: map[*conn]string{}}
	l.listener, l.accept = fd, n.accept
	if err := l.watch(fd, syscall.EPOLLIN); err != nil {
		return err
	}
	fmt.Printf("{\"event\":\"serving\",\"port\":%d}\n", address.(*syscall.SockaddrInet4).Port)
	l.run(func(int64) (int64, bool) { return never, false })
	return nil
}

func (n *nullServer) accept(listener int) {
	for {
		fd, _, err := syscall.Accept4(listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		if err := n.loop.add(&conn{fd: fd, owner: n, state: asked}); err != nil {
			fail(err)
		}
	}
}

func (n *nullServer) connected(*conn) {}

func (n *nullServer) lost(c *conn, _ error) {
	if name, known := n.names[c]; known {
		delete(n.names, c)
		delete(n.users, name)
	}
}

func (n *nullServer) input(c *conn, data []byte) (int, error) {
	if c.state == ready {
		return n.messages(c, data)
	}
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, nil
	}
	if bytes.HasPrefix(data, []byte("POST ")) {
		length, err := strconv.Atoi(string(between(data[:end+4], "Content-Length: ", "\r\n")))
		if err != nil || len(data) < end+4+length {
			return 0, err
		}
		n.publish(c, data[end+4:end+4+length])
		return end + 4 + length, nil
	}
	name := userOf(between(data[:end+4], "Bearer ", "\r\n"))
	n.users[name], n.names[c] = c, name
	c.state = ready
	n.loop.send(c, []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"))
	n.say(c, []byte(`{"type":"welcome"}`))
	return end + 4, nil
}

func (n *nullServer) messages(c *conn, data []byte) (int, error) {
	used := 0
	for {
		opcode, payload, size, err := parse(data[used:])
		if size == 0 || err != nil {
			return used, err
		}
		used += size
		if opcode == opText && bytes.Contains(payload, []byte("subscribe")) {
			n.say(c, []byte(`{"type":"reply","ref":1}`))
		}
	}
}

// publish hands each line of a body to its user, or to all, and answers.
func (n *nullServer) publish(from *conn, body []byte) {
	n.body = append(n.body[:0], `{"results":[`...)
	for _, line := range bytes.Split(body, []byte("\n")) {
		begin := bytes.Index(line, pushsvcData)
		if begin < 0 {
			continue
		}
		text := append([]byte(`{"type":"notification","id":"1-0",`), line[begin:]...)
		if user := between(line[:begin], `"user":"`, `"`); user == nil {
			for c := range n.names {
				n.say(c, text)
			}
		} else if c := n.users[string(user)]; c != nil {
			n.say(c, text)
		}
		n.body = append(n.body, `{"id":"1-0"},`...)
	}
	n.body = append(n.body, `{}]}`...)
	n.out = append(n.out[:0], "HTTP/1.1 202 Accepted\r\nContent-Length: "...)
	n.out = strconv.AppendInt(n.out, int64(len(n.body)), 10)
	n.out = append(append(n.out, "\r\n\r\n"...), n.body...)
	n.loop.send(from, n.out)
}

// say sends a text message as a server does: a frame of a client without its mask.
func (n *nullServer) say(c *conn, text []byte) {
	n.out = frame(n.out[:0], opText, text)
	head := len(n.out) - len(text) - 4
	n.out[1] &= 0x7F
	n.out = append(n.out[:head], text...)
	n.loop.send(c, n.out)
}

func between(text []byte, begin, end string) []byte {
	at := bytes.Index(text, []byte(begin))
	if at < 0 {
		return nil
	}
	text = text[at+len(begin):]
	if stop := bytes.Index(text, []byte(end)); stop >= 0 {
		return text[:stop]
	}
	return nil
}

// userOf reads the user of a token and believes it.
func userOf(token []byte) string {
	parts := bytes.Split(token, []byte("."))
	if len(parts) != 3 {
		return ""
	}
	var claims struct {
		Sub string `json:"sub"`
	}
	text, err := base64.RawURLEncoding.DecodeString(string(parts[1]))
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	if err != nil {
		return ""
	}
	return claims.Sub
}
