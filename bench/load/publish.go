package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// A publisher is a publish step: some connections kept alive, each with one request under way.
type publisher struct {
	sockets  *sockets
	todo     *step
	protocol protocol
	to       *syscall.SockaddrInet4
	targets  []string
	text     string

	idle    []*conn
	made    int // notifications
	under   int // requests
	answers samples
	reasons tally

	accepted, refused int
	data, request     []byte
}

type publishResult struct {
	Accepted        int     `json:"accepted"`
	Refused         int     `json:"refused"`
	Expected        int     `json:"expected"` // accepted, times those who listen
	Received        int     `json:"received"`
	Seconds         float64 `json:"seconds"`          // until the last answer
	ReceivedSeconds float64 `json:"received_seconds"` // until the last was received
	Answer          spread  `json:"answer_ms"`        // of a request
	Latency         spread  `json:"latency_ms"`       // from when a notification was due to when it was received
	Lost            int     `json:"lost"`             // connections of listeners that ended
	Reasons         tally   `json:"reasons,omitempty"`
}

func publish(s *sockets, todo *step) (any, error) {
	to, err := addressOf(todo.Address)
	if err != nil {
		return nil, err
	}
	if todo.Batch < 1 || todo.Connections < 1 || (todo.Count == 0 && todo.Seconds == 0) {
		return nil, errors.New("publish needs a batch, connections, and a count or seconds")
	}
	p := &publisher{sockets: s, todo: todo, to: to, reasons: tally{}, text: strings.Repeat("x", todo.Text)}
	if p.protocol, err = protocolOf(todo); err != nil {
		return nil, err
	}
	p.targets = []string{todo.Topic}
	if todo.To == "user" {
		if todo.Of < 1 {
			return nil, errors.New("publish needs to know how many users there are (of)")
		}
		p.targets = nil
		for i := 0; i < todo.Of+todo.Batch; i++ { // round and round, so that a batch is a slice
			p.targets = append(p.targets, todo.Users+strconv.Itoa(todo.First+i%todo.Of))
		}
	} else if todo.Batch > 1 {
		return nil, errors.New("publish makes batches for users only")
	}
	return p.run()
}

func (p *publisher) run() (any, error) {
	s := p.sockets
	lost := s.lostCount
	s.received, s.firstAt, s.lastAt, s.latencies = 0, 0, 0, nil
	conns, err := p.open()
	if err != nil {
		return nil, err
	}
	begin := now()
	progress, answered, seen, ended := begin, 0, 0, int64(0)
	s.loop.run(func(now int64) (int64, bool) {
		if n := len(p.answers); n != answered || s.received != seen {
			answered, seen, progress = n, s.received, now
		}
		next := progress + int64(p.todo.Patience*1e9)
		over := (p.todo.Count > 0 && p.made >= p.todo.Count) ||
			(p.todo.Seconds > 0 && now-begin > int64(p.todo.Seconds*1e9))
		for !over && len(p.idle) > 0 && !p.waits() {
			due := now
			if p.todo.Rate > 0 {
				due = begin + int64(pause(p.made, p.todo.Rate))
				if due > now {
					if due < next {
						next = due
					}
					break
				}
			}
			p.post(due)
			over = p.todo.Count > 0 && p.made >= p.todo.Count
		}
		if over && p.under == 0 {
			if ended == 0 {
				ended = now
			}
			if s.received >= p.accepted*p.todo.Listeners {
				return never, true
			}
		}
		return next, now > next || len(p.idle)+p.under == 0
	})
	if ended == 0 {
		ended = now()
	}
	for _, c := range conns {
		s.loop.drop(c, nil)
	}
	result := publishResult{
		Accepted: p.accepted, Refused: p.made - p.accepted, Expected: p.accepted * p.todo.Listeners,
		Received: s.received, Seconds: float64(ended-begin) / 1e9,
		Answer: p.answers.spread(), Latency: s.latencies.spread(),
		Lost: s.lostCount - lost, Reasons: p.reasons,
	}
	if s.lastAt > 0 {
		result.ReceivedSeconds = float64(s.lastAt-begin) / 1e9
	}
	return result, nil
}

// waits is whether as many as may be out are still to be received.
func (p *publisher) waits() bool {
	return p.todo.Ahead > 0 && p.made*p.todo.Listeners-p.sockets.received > (p.todo.Ahead-1)*p.todo.Listeners
}

// open opens the connections and waits for them.
func (p *publisher) open() ([]*conn, error) {
	var conns []*conn
	for i := 0; i < p.todo.Connections; i++ {
		c, err := p.sockets.loop.open(p.to, 0, p)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	deadline := now() + int64(p.todo.Patience*1e9)
	p.sockets.loop.run(func(now int64) (int64, bool) {
		return deadline, len(p.idle) == len(conns) || now > deadline || len(p.reasons) > 0
	})
	if len(p.idle) < len(conns) {
		return nil, fmt.Errorf("of %d connections %d opened: %v", len(conns), len(p.idle), p.reasons)
	}
	return conns, nil
}

// post sends the next request, of what is due at a time.
func (p *publisher) post(due int64) {
	last := len(p.idle) - 1
	c := p.idle[last]
	p.idle = p.idle[:last]
	count := p.todo.Batch
	if left := p.todo.Count - p.made; p.todo.Count > 0 && left < count {
		count = left
	}
	targets := p.targets
	if p.todo.To == "user" {
		first := p.made % p.todo.Of
		targets = targets[first : first+count]
	}
	p.data = append(append(p.data[:0], `{"at":"`...), mark...)
	p.data = strconv.AppendInt(p.data, due, 10)
	p.data = append(append(append(append(p.data, mark...), `","text":"`...), p.text...), `"}`...)
	p.request = p.protocol.request(p.request[:0], p.todo.To, targets, p.data)
	p.made += count
	p.under++
	c.number, c.since = int32(count), due
	p.sockets.loop.send(c, p.request)
}

// connected, input and lost are what the loop tells.
func (p *publisher) connected(c *conn) {
	c.state = ready
	p.idle = append(p.idle, c)
}

func (p *publisher) input(c *conn, data []byte) (int, error) {
	status, body, size, err := answerOf(data)
	if size == 0 || err != nil {
		return 0, err
	}
	p.under--
	p.answers = append(p.answers, now()-c.since)
	taken := 0
	if status/100 == 2 {
		taken = p.protocol.accepted(body, int(c.number))
	}
	p.accepted += taken
	if taken < int(c.number) {
		if len(body) > 300 {
			body = body[:300]
		}
		p.reasons.add(fmt.Sprintf("%d: %s", status, body))
	}
	p.idle = append(p.idle, c)
	return size, nil
}

func (p *publisher) lost(c *conn, err error) {
	p.reasons.add(err.Error())
	for i, other := range p.idle {
		if other == c {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return
		}
	}
	p.under--
}

// answerOf takes one answer of HTTP; size is 0 while it is not complete.
func answerOf(data []byte) (status int, body []byte, size int, err error) {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, nil, 0, nil
	}
	head := bytes.ToLower(data[:end+2])
	if len(head) < 12 {
		return 0, nil, 0, errors.New("no answer of HTTP")
	}
	if status, err = strconv.Atoi(string(head[9:12])); err != nil {
		return 0, nil, 0, err
	}
	rest := data[end+4:]
	if bytes.Contains(head, []byte("\r\ntransfer-encoding: chunked\r\n")) {
		last := bytes.Index(rest, []byte("0\r\n\r\n"))
		if last < 0 {
			return 0, nil, 0, nil
		}
		return status, rest[:last], end + 4 + last + 5, nil
	}
	length := 0
	if field := bytes.Index(head, []byte("\r\ncontent-length:")); field >= 0 {
		value := head[field+len("\r\ncontent-length:"):]
		value = value[:bytes.IndexByte(value, '\r')]
		if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
			return 0, nil, 0, err
		}
	}
	if len(rest) < length {
		return 0, nil, 0, nil
	}
	return status, rest[:length], end + 4 + length, nil
}
