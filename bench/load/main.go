// Command load is the load generator of the benchmarks.
//
// It needs Linux: one thread, one epoll set, no goroutine and no buffer for each connection, so
// that it outruns the servers that it is turned on, and holds a million sockets.
//
//	load        performs the steps that it reads, one JSON object a line, and answers each with one
//	load null   is the server that it is checked against: the least that a server could do
//
// Steps are `connect`, `publish`, `count` and `close`; their fields are those of type step. Between
// steps connections are served all the same: what asks whether they live is answered.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
)

// A step is one thing to do. Fields that a step has no use for are ignored.
type step struct {
	Do       string `json:"do"`
	Protocol string `json:"protocol"` // pushsvc, centrifugo, socketio, nchan, pusher, bare
	Address  string `json:"address"`  // 127.0.0.1:port
	Secret   string `json:"secret"`   // that tokens are signed with, and what stands for it elsewhere
	Users    string `json:"users"`    // what the names of users begin with; their number follows
	First    int    `json:"first"`    // number of the first user; each 20,000 users have an address of this machine
	Count    int    `json:"count"`    // connections to open; notifications to publish

	// connect
	Topic  string `json:"topic"`   // that all of them subscribe to, if any
	AtOnce int    `json:"at_once"` // handshakes under way (64)
	Silent bool   `json:"silent"`  // nothing that comes is acknowledged (pushsvc)

	// connect and publish
	Rate float64 `json:"rate"` // handshakes, notifications a second, whatever is answered; 0 is as fast as answered

	// publish
	To          string  `json:"to"`          // user, topic or broadcast
	Of          int     `json:"of"`          // users who are published to in turn
	Connections int     `json:"connections"` // kept alive; each has one request under way (16)
	Batch       int     `json:"batch"`       // notifications of a request (1)
	Seconds     float64 `json:"seconds"`     // after which no more is published, where it is not 0
	Ahead       int     `json:"ahead"`       // notifications that are out at most before the next is published; 0 is any number
	Listeners   int     `json:"listeners"`   // who are to receive each notification (1)
	Text        int     `json:"text"`        // bytes of text in each (64)

	// all
	Patience float64 `json:"patience"` // seconds without any progress after which a step ends (10)
}

func main() {
	debug.SetGCPercent(400)
	allowManyFiles()
	loop, err := newLoop()
	if err != nil {
		fail(err)
	}
	if len(os.Args) > 1 && os.Args[1] == "null" {
		fail(serveNull(loop))
	}
	perform(loop)
}

// perform does the steps of standard input, until it ends.
func perform(loop *loop) {
	lines := make(chan []byte, 1) // a line is there before the loop is interrupted for it
	go func() {
		input := bufio.NewScanner(os.Stdin)
		for input.Scan() {
			lines <- append([]byte(nil), input.Bytes()...)
			loop.interrupt()
		}
		close(lines)
		loop.interrupt()
	}()
	sockets := newSockets(loop)
	output := json.NewEncoder(os.Stdout)
	for {
		line, over := nextLine(loop, lines)
		if over {
			return
		}
		todo := step{AtOnce: 64, Connections: 16, Batch: 1, Listeners: 1, Text: 64, Patience: 10}
		var result any
		err := json.Unmarshal(line, &todo)
		if err == nil {
			result, err = do(sockets, &todo)
		}
		if err != nil {
			result = map[string]string{"error": err.Error()}
		}
		if err := output.Encode(result); err != nil {
			fail(err)
		}
	}
}

func nextLine(loop *loop, lines chan []byte) (line []byte, over bool) {
	arrived := false
	for !arrived {
		loop.run(func(int64) (int64, bool) {
			select {
			case text, ok := <-lines:
				line, over, arrived = text, !ok, true
			default:
			}
			return never, arrived
		})
	}
	return line, over
}

func do(sockets *sockets, todo *step) (any, error) {
	switch todo.Do {
	case "connect":
		return sockets.connect(todo)
	case "publish":
		return publish(sockets, todo)
	case "count":
		return sockets.count(), nil
	case "close":
		return sockets.close(), nil
	}
	return nil, fmt.Errorf("no such step: %q", todo.Do)
}

// allowManyFiles raises the limit of open files as far as the process may.
func allowManyFiles() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	more := syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if limit.Max >= 1<<20 || syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) != nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "load:", err)
	os.Exit(1)
}
