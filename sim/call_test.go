package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"

	"bloq-agent/ipc"
)

// An answer is what a caller got, and when.
type answer struct {
	start, end time.Time
	true       time.Time // at the start
	from       *instance
	// broken says that the connection ended without an answer: the daemon is gone,
	// or stops.
	broken  bool
	status  int
	header  http.Header
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

// A writer is the caller's side of an answer.
type writer struct{ *httptest.ResponseRecorder }

func (writer) SetReadDeadline(time.Time) error  { return nil }
func (writer) SetWriteDeadline(time.Time) error { return nil }

// A request is what a caller asks.
type request struct {
	method, path string
	body         any // nil, []byte, or something for JSON
	wait         time.Duration
	cancel       time.Duration // 0: it stays; else it hangs up after that long
}

// call asks the daemon that runs, as a program does through the socket.
func (w *world) call(q request) answer {
	w.pause("call", q.path, 300*time.Microsecond)
	w.model.Lock()
	i := w.running()
	w.model.Unlock()
	a := answer{start: time.Now(), true: w.clocks.true(), from: i}
	if i == nil || !i.begin() {
		a.broken, a.end = true, time.Now()
		return a
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, q.method, q.path, bytes.NewReader(nil))
	if body := encode(q.body); body != nil {
		r = httptest.NewRequestWithContext(ctx, q.method, q.path, bytes.NewReader(body))
	} else {
		r.Body = http.NoBody
	}
	if q.wait >= 0 {
		r.Header.Set(ipc.HeaderWait, strconv.FormatInt(q.wait.Milliseconds(), 10))
	}
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
	case <-i.killed:
		a.broken = true
	case <-hangUp:
		a.broken = true
	}
	a.end = time.Now()
	if a.broken {
		return a
	}
	a.status, a.header, a.body = rec.Code, rec.Header(), rec.Body.Bytes()
	if !a.ok() {
		_ = json.Unmarshal(a.body, &a.problem) // it is checked as text too
	}
	w.checkAnswer(q, a)
	return a
}

// begin reports whether the daemon still takes requests.
func (i *instance) begin() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return false
	}
	i.active.Add(1)
	return true
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

// checkAnswer holds every answer against what holds for all.
func (w *world) checkAnswer(q request, a answer) {
	text := string(a.body)
	if !a.ok() {
		w.mustHoldNoSecret("an answer", text)
		for _, ours := range []string{"context deadline exceeded", "context canceled", "i/o timeout"} {
			if strings.Contains(a.problem.Detail, ours) && !strings.Contains(a.problem.Detail, "http") {
				w.violated("no caller's deadline is an answer", "%s %s: %s", q.method, q.path, a.problem.Detail)
			}
		}
		if a.problem.Code == ipc.CodeInternal {
			w.note("internal: %s", a.problem.Detail)
		}
	}
}

// mustHoldNoSecret looks for tokens and client secrets.
func (w *world) mustHoldNoSecret(where, text string) {
	if i := strings.Index(text, "eyJ"); i >= 0 {
		w.violated("no secret is shown", "%s holds a token: %.60s", where, text[max(0, i-30):])
	}
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	for _, s := range w.api.secrets {
		if strings.Contains(text, s) {
			w.violated("no secret is shown", "%s holds one", where)
		}
	}
}

// ask is call for a command, which holds w.model.
func (w *world) ask(q request) (a answer) {
	w.outside(func() { a = w.call(q) })
	return a
}

// outside runs f, which may wait, without w.model.
func (w *world) outside(f func()) {
	w.model.Unlock()
	defer w.model.Lock()
	f()
}

func (w *world) sleep(d time.Duration) { w.outside(func() { time.Sleep(d) }) }
