//go:build linux

package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"strconv"
	"time"

	"bloq-agent/ipc"
)

// An answer is what a caller got, and when.
type answer struct {
	start, end time.Time
	true       time.Time // the true time at start
	from       *instance
	// broken: there was no answer, because the daemon is gone or stops, or the caller
	// hung up.
	broken  bool
	status  int
	body    []byte
	problem ipc.Problem
}

func (a answer) ok() bool { return !a.broken && a.status/100 == 2 }

// word is the answer in the trace.
func (a answer) word() string {
	switch {
	case a.broken:
		return "no answer"
	case a.ok():
		return "ok"
	}
	return string(a.problem.Code)
}

// A writer is the caller's side of an answer. The server sets deadlines on it, which a
// recorder does not know.
type writer struct{ *httptest.ResponseRecorder }

func (writer) SetReadDeadline(time.Time) error  { return nil }
func (writer) SetWriteDeadline(time.Time) error { return nil }

// A request is what a caller asks.
type request struct {
	method, path string
	body         any           // nil, []byte, or something for JSON
	wait         time.Duration // of HeaderWait
	cancel       time.Duration // after which the caller hangs up; 0 for never
}

// call asks the daemon that runs, as a program does through the socket.
func (w *world) call(q request) answer {
	w.pause("call", q.path, 300*time.Microsecond)
	w.model.Lock()
	i := w.running()
	w.model.Unlock()
	a := answer{start: time.Now(), true: w.clocks.true(), from: i}
	if i == nil || !i.admit() {
		a.broken, a.end = true, time.Now()
		return a
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, q.method, q.path, bytes.NewReader(encode(q.body)))
	r.Header.Set(ipc.HeaderWait, strconv.FormatInt(q.wait.Milliseconds(), 10))
	rec := writer{httptest.NewRecorder()}
	done := make(chan bool, 1)
	go func() {
		defer i.active.Done()
		defer func() { done <- recover() == nil }() // http.ErrAbortHandler breaks the connection
		i.handler.ServeHTTP(rec, r)
	}()
	var hangUp <-chan time.Time
	if q.cancel > 0 {
		hangUp = time.After(q.cancel)
	}
	select {
	case whole := <-done:
		a.broken = !whole || i.dead()
		if !whole && !i.dead() && !i.stopping() {
			w.violated("every request is answered", "%s %s", q.method, q.path)
		}
	case <-i.killed:
		a.broken = true
	case <-hangUp:
		a.broken = true
	}
	a.end = time.Now()
	if a.broken {
		return a
	}
	a.status, a.body = rec.Code, rec.Body.Bytes()
	if !a.ok() {
		_ = json.Unmarshal(a.body, &a.problem) // it is checked as text too
	}
	w.checkAnswer(q, a)
	return a
}

func encode(body any) []byte {
	switch b := body.(type) {
	case nil:
		return nil
	case []byte:
		return b
	}
	data, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return data
}
