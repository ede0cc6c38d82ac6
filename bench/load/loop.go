package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"syscall"
	"time"
	"unsafe"
)

const never = int64(math.MaxInt64)

var (
	began     = time.Now()
	beganUnix = began.UnixNano()
)

// now is the time in nanoseconds since 1970, by a clock that nobody sets.
func now() int64 { return beganUnix + int64(time.Since(began)) }

// A conn is one TCP connection of a loop.
type conn struct {
	fd     int
	owner  owner
	in     []byte // came, and is not complete yet
	out    []byte // waits until the socket takes it
	number int32  // of the user, or of the requests under way
	state  state
	since  int64 // when its handshake or its request began
}

type state int8

const (
	connecting state = iota
	asked            // the handshake is sent
	opened           // it is a WebSocket
	ready            // what it is for is registered
	gone
)

// An owner is told what happens to its connections.
type owner interface {
	connected(c *conn)
	// input takes what came, and says how many bytes of it were complete.
	input(c *conn, data []byte) (int, error)
	lost(c *conn, err error)
}

// A loop is one thread's epoll set and its connections.
type loop struct {
	epoll, timer int
	wakeRead     int
	wakeWrite    int
	alarm        int64 // what the timer is set to
	conns        []*conn
	accept       func(fd int) // for the descriptor listener
	listener     int
	events       []syscall.EpollEvent
	buffer       []byte
}

const edge = 1 << 31 // EPOLLET, which package syscall has as a negative number

func newLoop() (*loop, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	timer, _, code := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, 1, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if code != 0 {
		return nil, code
	}
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_NONBLOCK|syscall.O_CLOEXEC); err != nil {
		return nil, err
	}
	l := &loop{
		epoll: epoll, timer: int(timer), wakeRead: pipe[0], wakeWrite: pipe[1], listener: -1,
		alarm: never, events: make([]syscall.EpollEvent, 512), buffer: make([]byte, 1<<18),
	}
	for _, fd := range []int{l.timer, l.wakeRead} {
		if err := l.watch(fd, syscall.EPOLLIN); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *loop) watch(fd int, events uint32) error {
	return syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)})
}

// interrupt has the loop call what it runs; from any goroutine.
func (l *loop) interrupt() { _, _ = syscall.Write(l.wakeWrite, []byte{0}) }

// run serves connections until turn says that it is done. It is called after each round of events,
// and when the time comes that it named last.
func (l *loop) run(turn func(now int64) (next int64, done bool)) {
	for {
		next, done := turn(now())
		if done {
			return
		}
		l.set(next)
		n, err := syscall.EpollWait(l.epoll, l.events, -1)
		if err != nil && err != syscall.EINTR {
			fail(fmt.Errorf("epoll_wait: %w", err))
		}
		for i := 0; i < n; i++ {
			l.event(int(l.events[i].Fd), l.events[i].Events)
		}
	}
}

func (l *loop) event(fd int, events uint32) {
	switch fd {
	case l.timer:
		l.alarm = never
		_, _ = syscall.Read(fd, l.buffer[:8])
		return
	case l.wakeRead:
		_, _ = syscall.Read(fd, l.buffer)
		return
	case l.listener:
		l.accept(fd)
		return
	}
	c := l.conns[fd]
	if c == nil {
		return
	}
	if events&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0 && c.state == connecting {
		code, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
		l.drop(c, syscall.Errno(code))
		return
	}
	if events&syscall.EPOLLOUT != 0 {
		if c.state == connecting {
			c.owner.connected(c)
		} else if len(c.out) > 0 {
			l.flush(c)
		}
	}
	if events&(syscall.EPOLLIN|syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		l.read(c)
	}
}

// set has the timer go off at a time.
func (l *loop) set(at int64) {
	if at == l.alarm {
		return
	}
	l.alarm = at
	var value [4]int64 // seconds and nanoseconds of the interval, then of the first time; 0 is off
	if at != never {
		left := at - now()
		if left < 1 {
			left = 1
		}
		value[2], value[3] = left/1e9, left%1e9
	}
	_, _, _ = syscall.Syscall6(
		syscall.SYS_TIMERFD_SETTIME, uintptr(l.timer), 0, uintptr(unsafe.Pointer(&value)), 0, 0, 0)
}

// Ports of one address. Linux gives out 28,232 by default, and first the half of them that is even: once these
// are taken, every connect looks through all of them again.
const portsOfAnAddress = 14_000

const bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT: the port is chosen once the other end is known

// open begins a connection; the number spreads connections over addresses of this machine.
func (l *loop) open(to *syscall.SockaddrInet4, number int, owner owner) (*conn, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &conn{fd: fd, owner: owner, since: now()}
	// A close that is a reset leaves no port waiting, of which there are too few.
	_ = syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	if block := number / portsOfAnAddress; block > 0 {
		_ = syscall.SetsockoptInt(fd, syscall.SOL_IP, bindAddressNoPort, 1)
		from := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, byte(block >> 8), byte(block) + 1}}
		if err = syscall.Bind(fd, from); err != nil {
			_ = syscall.Close(fd)
			return nil, err
		}
	}
	if err = syscall.Connect(fd, to); err != nil && err != syscall.EINPROGRESS {
		_ = syscall.Close(fd)
		return nil, err
	}
	return c, l.add(c)
}

func (l *loop) add(c *conn) error {
	for len(l.conns) <= c.fd {
		l.conns = append(l.conns, make([]*conn, len(l.conns)+1024)...)
	}
	l.conns[c.fd] = c
	return l.watch(c.fd, syscall.EPOLLIN|syscall.EPOLLOUT|edge)
}

// send writes, or keeps what the socket does not take now.
func (l *loop) send(c *conn, data []byte) {
	if c.state == gone {
		return
	}
	if len(c.out) == 0 {
		n, err := syscall.Write(c.fd, data)
		if err != nil && err != syscall.EAGAIN {
			l.drop(c, err)
			return
		}
		if n > 0 {
			data = data[n:]
		}
	}
	if len(data) > 0 {
		c.out = append(c.out, data...)
	}
}

func (l *loop) flush(c *conn) {
	data := c.out
	c.out = nil
	l.send(c, data)
}

// read takes all that came: an edge is told once.
func (l *loop) read(c *conn) {
	for c.state != gone {
		n, err := syscall.Read(c.fd, l.buffer)
		switch {
		case err == syscall.EAGAIN:
			return
		case err == syscall.EINTR:
			continue
		case err != nil:
			l.drop(c, err)
			return
		case n == 0:
			l.drop(c, io.EOF)
			return
		}
		data := l.buffer[:n]
		if len(c.in) > 0 {
			c.in = append(c.in, data...)
			data = c.in
		}
		used, err := c.owner.input(c, data)
		if err != nil {
			l.drop(c, err)
			return
		}
		if used == len(data) {
			c.in = nil
		} else {
			c.in = append([]byte(nil), data[used:]...)
		}
		if n < len(l.buffer) {
			return
		}
	}
}

// drop ends a connection; a reason that is nil is that nobody needs it any more.
func (l *loop) drop(c *conn, reason error) {
	if c.state == gone {
		return
	}
	l.conns[c.fd] = nil
	_ = syscall.Close(c.fd)
	if reason != nil {
		c.owner.lost(c, reason)
	}
	c.state = gone
	c.in, c.out = nil, nil
}

func addressOf(text string) (*syscall.SockaddrInet4, error) {
	address, err := net.ResolveTCPAddr("tcp4", text)
	if err != nil {
		return nil, err
	}
	ip := address.IP.To4()
	if ip == nil || !ip.IsLoopback() {
		return nil, errors.New("the address must be of this machine: 127.0.0.0/8 and a port")
	}
	return &syscall.SockaddrInet4{Port: address.Port, Addr: [4]byte{ip[0], ip[1], ip[2], ip[3]}}, nil
}
