// Package client sends one request to the daemon by raw system calls.
//
// The helper links it and is started hundreds of times a day, so it does
// without net and net/http: they cost 1.2 ms of a 1.9 ms run. It promises that
// a cut answer is never taken for a whole one, that nothing is sent to a
// server of another user, and that a daemon which restarts in the middle is
// asked again until the deadline.
package client

import (
	"errors"
	"strconv"
	"syscall"
	"time"

	"bloq-agent/ipc"
	"bloq-agent/userns"
)

// A Request is one HTTP/1.0 request.
type Request struct {
	Method string // "GET" unless set
	Target string // path and query, as they go on the wire
	Body   []byte
	// Timeout bounds the whole request, repeats included. Zero means
	// ipc.DefaultTimeoutMS.
	Timeout time.Duration
	// Once forbids a repeat after the request was sent, for what must not be
	// done twice.
	Once bool
}

// An Answer is a whole answer: its body is as long as the server announced.
type Answer struct {
	Status int
	Body   []byte
	header []byte
}

// Errors that callers tell apart. Everything that Do returns is one of these
// or a *ConnectError.
var (
	ErrTimeout       = errors.New("no answer in time")
	ErrForeignServer = errors.New("socket belongs to another user; nothing was sent")
	ErrBadAnswer     = errors.New("answer is not from a bloq-agent")
	ErrCutAnswer     = errors.New("connection broke in the middle of the answer")
	ErrNoAnswer      = errors.New("connection broke before an answer came")
)

// A ConnectError says that no daemon listens at Path.
type ConnectError struct {
	Path string
	Err  error
}

func (e *ConnectError) Error() string { return "connect " + e.Path + ": " + e.Err.Error() }

// Unwrap is the system's reason.
func (e *ConnectError) Unwrap() error { return e.Err }

// Do asks the daemon at socket. While no byte of an answer has come it
// connects again, after 10 ms and then twice as long each time, because a
// restarting daemon breaks connections; but a socket where nobody listens at
// the first try is an error at once.
func Do(socket string, r Request) (Answer, error) {
	if r.Timeout <= 0 {
		r.Timeout = ipc.DefaultTimeoutMS * time.Millisecond
	}
	deadline := time.Now().Add(r.Timeout)
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		a, err := once(socket, r, deadline)
		if err == nil || !repeatable(err, r.Once, pause > 10*time.Millisecond) {
			return a, err
		}
		left := time.Until(deadline)
		if left <= pause {
			return Answer{}, ErrTimeout
		}
		time.Sleep(pause)
	}
}

// repeatable: a refused connection is repeated only after one that broke, for
// then the daemon was there a moment ago.
func repeatable(err error, sendOnce, again bool) bool {
	if err == ErrNoAnswer {
		return !sendOnce
	}
	var c *ConnectError
	return again && errors.As(err, &c)
}

func once(socket string, r Request, deadline time.Time) (Answer, error) {
	fd, err := dial(socket, deadline)
	if err != nil {
		return Answer{}, err
	}
	defer syscall.Close(fd)
	uid, err := serverUID(fd)
	if err != nil {
		return Answer{}, &ConnectError{socket, err}
	}
	if !trusted(uid, syscall.Getuid()) || userns.Unknown(uint32(uid)) {
		return Answer{}, ErrForeignServer
	}
	// A server that refuses early closes with our request unread. What it said
	// can still be read, so a failed write is not yet the end.
	if err := send(fd, encode(r, time.Until(deadline)), deadline); err == ErrTimeout {
		return Answer{}, err
	}
	return receive(fd, deadline)
}

// trusted: root is, because PID 1 listens on the system unit's socket.
func trusted(server, own int) bool { return server == own || server == 0 }

func dial(socket string, deadline time.Time) (int, error) {
	if len(socket) > ipc.MaxPath {
		return 0, &ConnectError{socket, ipc.ErrPathTooLong}
	}
	for {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			return 0, &ConnectError{socket, err}
		}
		// connect blocks while the backlog is full; SO_SNDTIMEO bounds it (unix(7)).
		if err = arm(fd, syscall.SO_SNDTIMEO, deadline); err == nil {
			err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket})
		}
		if err == nil {
			return fd, nil
		}
		syscall.Close(fd)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN, ErrTimeout:
			return 0, ErrTimeout
		}
		return 0, &ConnectError{socket, err}
	}
}

// arm bounds the next blocking call on fd by what is left.
func arm(fd, option int, deadline time.Time) error {
	left := time.Until(deadline)
	if left <= 0 {
		return ErrTimeout
	}
	// A zero timeval would mean for ever.
	tv := syscall.NsecToTimeval(int64(left + time.Microsecond))
	return syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, option, &tv)
}

func encode(r Request, wait time.Duration) []byte {
	method := r.Method
	if method == "" {
		method = "GET"
	}
	b := make([]byte, 0, 256+len(r.Target)+len(r.Body))
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, r.Target...)
	b = append(b, " HTTP/1.0\r\nHost: bloq-agent\r\n"+ipc.HeaderWait+": "...)
	b = strconv.AppendInt(b, max(0, wait.Milliseconds()), 10)
	if r.Body != nil {
		b = append(b, "\r\nContent-Type: application/octet-stream\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.Body)), 10)
	}
	b = append(b, "\r\n\r\n"...)
	return append(b, r.Body...)
}

func send(fd int, b []byte, deadline time.Time) error {
	for len(b) > 0 {
		if err := arm(fd, syscall.SO_SNDTIMEO, deadline); err != nil {
			return err
		}
		n, err := syscall.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return ErrTimeout
		default:
			return err
		}
	}
	return nil
}

func receive(fd int, deadline time.Time) (Answer, error) {
	buf := make([]byte, 0, 8<<10)
	for {
		a, err := parse(buf)
		if err != errShort {
			return a, err
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, 4*cap(buf)), buf...)
		}
		if err := arm(fd, syscall.SO_RCVTIMEO, deadline); err != nil {
			return Answer{}, err
		}
		n, err := syscall.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return Answer{}, ErrTimeout
		case err != nil || n == 0:
			if len(buf) == 0 {
				return Answer{}, ErrNoAnswer
			}
			return Answer{}, ErrCutAnswer
		default:
			buf = buf[:len(buf)+n]
		}
	}
}
