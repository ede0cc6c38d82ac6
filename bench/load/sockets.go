package main

import (
	"bytes"
	"fmt"
	"strconv"
)

// sockets are the WebSockets that are held, and the count of what came on them.
type sockets struct {
	loop     *loop
	all      []*conn
	protocol protocol
	users    string

	under, ready, failed int // of the connect step
	handshakes           samples
	reasons              tally

	received    int
	firstAt     int64
	lastAt      int64
	latencies   samples
	lostReasons tally
	lostCount   int
	scratch     []byte
}

func newSockets(loop *loop) *sockets {
	return &sockets{loop: loop, lostReasons: tally{}, reasons: tally{}}
}

type connectResult struct {
	Connected int     `json:"connected"`
	Failed    int     `json:"failed"`
	Seconds   float64 `json:"seconds"`
	Handshake spread  `json:"handshake_ms"`
	Reasons   tally   `json:"reasons,omitempty"`
}

// connect opens connections beside those that there are; all have to speak the same protocol.
func (s *sockets) connect(todo *step) (any, error) {
	to, err := addressOf(todo.Address)
	if err != nil {
		return nil, err
	}
	if s.protocol, err = protocolOf(todo); err != nil {
		return nil, err
	}
	s.users = todo.Users
	s.under, s.ready, s.failed, s.handshakes, s.reasons = 0, 0, 0, nil, tally{}
	begin := now()
	begun, progress, done := 0, begin, 0
	s.loop.run(func(now int64) (int64, bool) {
		if s.ready+s.failed > done {
			done, progress = s.ready+s.failed, now
		}
		next := progress + int64(todo.Patience*1e9)
		if done == todo.Count || now > next {
			return never, true
		}
		for begun < todo.Count && s.under < todo.AtOnce {
			if due := begin + int64(pause(begun, todo.Rate)); due > now {
				if due < next {
					next = due
				}
				break
			}
			// The number of its user spreads it over addresses, also where several of this program run.
			c, err := s.loop.open(to, todo.First+begun, s)
			if err != nil {
				s.failed++
				s.reasons.add(err.Error())
			} else {
				c.number = int32(todo.First + begun)
				s.all = append(s.all, c)
				s.under++
			}
			begun++
		}
		return next, false
	})
	s.dropUnready()
	return connectResult{
		Connected: s.ready, Failed: todo.Count - s.ready, Seconds: float64(now()-begin) / 1e9,
		Handshake: s.handshakes.spread(), Reasons: s.reasons,
	}, nil
}

// dropUnready closes what did not become ready, and forgets what is closed.
func (s *sockets) dropUnready() {
	kept := s.all[:0]
	for _, c := range s.all {
		if c.state == ready {
			kept = append(kept, c)
		} else {
			s.loop.drop(c, nil)
		}
	}
	s.all = kept
}

// pause is when the n-th thing is due at a rate, in nanoseconds; 0 is as fast as it goes.
func pause(n int, rate float64) float64 {
	if rate == 0 {
		return 0
	}
	return float64(n) / rate * 1e9
}

type countResult struct {
	Open     int    `json:"open"`
	Lost     int    `json:"lost"`
	Received int    `json:"received"`
	Latency  spread `json:"latency_ms"` // of what was received, whoever published it on this machine
	Reasons  tally  `json:"reasons,omitempty"`
}

// count is how many are open, were lost, and what has come since the last publish began.
func (s *sockets) count() any {
	open := 0
	for _, c := range s.all {
		if c.state == ready {
			open++
		}
	}
	return countResult{Open: open, Lost: s.lostCount, Received: s.received, Latency: s.latencies.spread(), Reasons: s.lostReasons}
}

// close closes all.
func (s *sockets) close() any {
	result := s.count()
	for _, c := range s.all {
		s.loop.drop(c, nil)
	}
	s.all, s.lostCount, s.lostReasons = nil, 0, tally{}
	return result
}

func (s *sockets) user(c *conn) string { return s.users + strconv.Itoa(int(c.number)) }

// isReady says that what a connection is for is registered.
func (s *sockets) isReady(c *conn) {
	if c.state != ready {
		c.state = ready
		s.under--
		s.ready++
		s.handshakes = append(s.handshakes, now()-c.since)
	}
}

// say sends a text message.
func (s *sockets) say(c *conn, text []byte) {
	s.scratch = frame(s.scratch[:0], opText, text)
	s.loop.send(c, s.scratch)
}

// connected, input and lost are what the loop tells.
func (s *sockets) connected(c *conn) {
	c.state = asked
	s.loop.send(c, s.protocol.handshake(s.user(c)))
}

func (s *sockets) input(c *conn, data []byte) (int, error) {
	used := 0
	if c.state == asked {
		size, err := upgraded(data)
		if size == 0 || err != nil {
			return 0, err
		}
		used, c.state = size, opened
		s.protocol.opened(s, c)
	}
	for c.state != gone {
		opcode, payload, size, err := parse(data[used:])
		if size == 0 || err != nil {
			return used, err
		}
		used += size
		switch opcode {
		case opText, opBinary:
			if err := s.protocol.message(s, c, payload); err != nil {
				return used, err
			}
		case opPing:
			s.scratch = frame(s.scratch[:0], opPong, payload)
			s.loop.send(c, s.scratch)
		case opClose:
			return used, closing(payload)
		}
	}
	return used, nil
}

func (s *sockets) lost(c *conn, err error) {
	if c.state == ready {
		s.lostCount++
		s.lostReasons.add(err.Error())
		return
	}
	s.under--
	s.failed++
	s.reasons.add(fmt.Sprintf("%s: %v", []string{"connecting", "asked", "opened"}[c.state], err))
}

// The time at which a notification was to be published stands in its data between two of these, so
// that it is found in whatever a protocol makes of it.
var mark = []byte("@")

// notice counts the notifications of a message: their times.
func (s *sockets) notice(payload []byte) {
	at := int64(0)
	for {
		begin := bytes.Index(payload, mark)
		if begin < 0 {
			return
		}
		payload = payload[begin+1:]
		end := bytes.Index(payload, mark)
		if end < 0 {
			return
		}
		sent, err := strconv.ParseInt(string(payload[:end]), 10, 64)
		payload = payload[end+1:]
		if err != nil {
			continue
		}
		if at == 0 {
			at = now()
		}
		s.received++
		if s.firstAt == 0 {
			s.firstAt = at
		}
		s.lastAt = at
		s.latencies = append(s.latencies, at-sent)
	}
}
