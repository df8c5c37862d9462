package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
	"bloq-agent/ipc/client"
)

// mostPatient is the median within which a rightful caller must have its token
// whatever others do to the socket.
const mostPatient = 10 * time.Millisecond

// neverLonger is less than the time after which the server gives up on who says
// nothing: a caller must not have waited for that.
const neverLonger = 3 * time.Second

// A rightful caller asks for the token until it is stopped.
type rightful struct {
	t    *testing.T
	path string
	stop chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	took []time.Duration
	lost []error
}

func (w *world) rightful() *rightful {
	r := &rightful{t: w.t, path: w.socket(), stop: make(chan struct{})}
	r.done.Go(func() { // ends with finish
		for {
			select {
			case <-r.stop:
				return
			case <-time.After(3 * time.Millisecond):
			}
			start := time.Now()
			a, err := client.Do(r.path, client.Request{Target: ipc.RouteToken + "?profile=default"})
			if err == nil && (a.Status != 200 || !bytes.Contains(a.Body, []byte(`"token":"eyJ`))) {
				err = fmt.Errorf("status %d: %.200s", a.Status, a.Body)
			}
			r.mu.Lock()
			r.took = append(r.took, time.Since(start))
			if err != nil {
				r.lost = append(r.lost, err)
			}
			r.mu.Unlock()
		}
	})
	return r
}

// phase judges and forgets what the caller has met since the last.
func (r *rightful) phase(name string) {
	r.t.Helper()
	r.mu.Lock()
	took, lost := r.took, r.lost
	r.took, r.lost = nil, nil
	r.mu.Unlock()
	if len(took) == 0 {
		r.t.Errorf("%s: the rightful caller was never answered", name)
		return
	}
	slices.Sort(took)
	median, late := took[len(took)/2], took[len(took)*99/100]
	r.t.Logf("%-28s a rightful caller: %6d requests, median %8v, 99%% within %8v, longest %8v",
		name, len(took), median.Round(time.Microsecond), late.Round(time.Microsecond), took[len(took)-1].Round(time.Microsecond))
	if median > mostPatient {
		r.t.Errorf("%s: a rightful caller's median is %v", name, median)
	}
	if longest := took[len(took)-1]; longest > neverLonger {
		r.t.Errorf("%s: a rightful caller waited for %v", name, longest)
	}
	if len(lost) > 0 {
		r.t.Errorf("%s: %d rightful requests failed: %v", name, len(lost), lost[0])
	}
}

func (r *rightful) finish() {
	close(r.stop)
	r.done.Wait()
}

// Nothing that a program of the same user sends ends the daemon, keeps a
// rightful caller waiting, or leaves anything behind.
func TestTheSocketUnderFire(t *testing.T) {
	requests := 50_000
	if os.Getenv("BLOQ_SOAK") != "" {
		requests = 1_000_000
	}
	w := newWorld(t, sandbox.Config{})
	// As it would run: the log of a million requests at debug level is a load of
	// its own.
	w.start("--store", "memory", "--log-level", "info")
	w.login("-p", "default")
	pid := w.daemon.Process.Pid
	caller := w.rightful()
	time.Sleep(time.Second)
	caller.phase("at rest")
	before := descriptors(t, pid)

	start := time.Now()
	answers := w.fuzz(requests)
	t.Logf("%d random and mutated requests in %v: %v", requests, time.Since(start).Round(time.Second), answers)
	if answers["200"] < requests/100 || answers["400"] < requests/100 {
		t.Error("few of them got past the parser, or none stopped there")
	}
	caller.phase("random and mutated requests")
	w.lorises(512, 6*time.Second)
	caller.phase("512 slow-loris connections")
	w.passDescriptors(10_000)
	caller.phase("10,000 passed descriptors")
	w.halfClose(2_000)
	caller.phase("half-closed peers")
	w.streams(4 * time.Second)
	caller.phase("512 unread event streams")
	w.unread(4 * time.Second)
	caller.phase("512 unread answers")
	w.everything(requests / 10)
	caller.phase("all of it at once")
	caller.finish()

	settled := time.Now().Add(40 * time.Second) // an idle connection may stay for 30
	for descriptors(t, pid) > before && time.Now().Before(settled) {
		time.Sleep(50 * time.Millisecond)
	}
	after := descriptors(t, pid)
	t.Logf("descriptors: %d before, %d after", before, after)
	if after > before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
	w.must("", "bloq-token")
	for _, bad := range []string{"panic", "ran into a defect"} {
		if w.log.contains(0, bad) {
			t.Errorf("the log speaks of a %s", bad)
		}
	}

	// A second daemon that was left in peace has as many goroutines.
	peace := newWorld(t, sandbox.Config{})
	peace.start("--store", "memory", "--log-level", "info")
	peace.login("-p", "default")
	want, got := peace.goroutines(), w.goroutines()
	t.Logf("goroutines: %d, and %d in a daemon that nobody attacked", len(got), len(want))
	if len(got) > len(want) {
		t.Errorf("%d goroutines are left, %d are due\n%s\n\ndue:\n%s", len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Logf("descriptors can't be counted: %v", err) // the process is closed to us
		return 0
	}
	return len(list)
}

// goroutines ends the daemon by a signal that makes it say what runs.
func (w *world) goroutines() []string {
	w.t.Helper()
	time.Sleep(time.Second) // connections that have ended are cleared away
	must(w.t, w.daemon.Process.Signal(syscall.SIGQUIT))
	_ = w.daemon.Wait()
	var made []string // what made each
	for _, m := range regexp.MustCompile(`(?m)^created by (.*)$`).FindAllStringSubmatch(w.log.String(), -1) {
		if !strings.HasPrefix(m[1], "runtime.") { // the collector's come and go
			made = append(made, m[1])
		}
	}
	if len(made) == 0 {
		w.t.Fatalf("no goroutines in %s", w.log.String())
	}
	slices.Sort(made)
	return made
}

// seeds are what a mutated request begins as: one of every route at least.
// None can change what the rightful caller gets: cut or changed, they name
// another profile or none that there is.
var seeds = func() []string {
	post := func(route, body string) string {
		return "POST " + route + " HTTP/1.1\r\nHost: bloq-agent\r\nBloq-Wait: 200\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	}
	get := func(target string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: bloq-agent\r\nBloq-Wait: 200\r\n\r\n"
	}
	return []string{
		get("/v1/token?profile=default&min_ttl=5m&kind=access"), get("/v1/token?kind=account"), get("/v1/auth?profile=default"),
		post("/v1/dialect/token", "a3:get,e3:A=1,i21:protocol=https\nhost=x\n,"), post("/v1/dialect/json", "i0:,"),
		get("/v1/status?profile=default"), get("/v1/callers"), get("/v1/lock"), get("/v1/forget"), get("/v1/unlock"), get("/v1/protect"),
		post("/v1/refresh", `{"profile":"nobody"}`), post("/v1/forget", `{"profile":"nobody"}`),
		post("/v1/store", `{"profile":"nobody","to":"nowhere"}`),
		post("/v1/adopt", `{"profile":"nobody","environment":"prod","refresh_token":"x"}`),
		"GET /v1/token HTTP/1.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"POST /v1/dialect/token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ni0:,\r\n0\r\n\r\n",
	}
}()

var words = []string{
	"\r\n", "\r\n\r\n", "\x00", "\xff", " ", "\t", ":", "/", "%", "%00", "%zz", "?", "&", "=", "profile=", "min_ttl=", "min_ttl=99999999999h", "-1", "0",
	"18446744073709551616", "Content-Length: 5\r\n", "Content-Length: -1\r\n", "Transfer-Encoding: chunked\r\n", "Connection: keep-alive\r\n",
	"Expect: 100-continue\r\n", "Bloq-Wait: 0\r\n", "Bloq-Wait: 4294967296\r\n", "Upgrade: h2c\r\n", "HTTP/9.9", "{", "}", "[", `"`, "..", "//", "\n",
	strings.Repeat("a", 9000), strings.Repeat("i0:,", 50), "e1:x,", "a99999999999999999999:", "Host: \r\n",
}

func mutate(r *rand.Rand) []byte {
	if r.IntN(8) == 0 { // nothing of ours
		b := make([]byte, r.IntN(300))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	b := []byte(seeds[r.IntN(len(seeds))])
	if r.IntN(6) == 0 {
		b = append(b, seeds[r.IntN(len(seeds))]...) // pipelined
	}
	for range r.IntN(5) {
		if len(b) == 0 {
			break
		}
		i := r.IntN(len(b))
		switch r.IntN(6) {
		case 0:
			b[i] = byte(r.Uint32())
		case 1:
			b = b[:i]
		case 2:
			b = slices.Delete(b, i, min(len(b), i+1+r.IntN(8)))
		case 3:
			b = slices.Insert(b, i, []byte(words[r.IntN(len(words))])...)
		case 4:
			b[i] ^= 1 << r.IntN(8)
		case 5:
			b = slices.Insert(b, i, b[i:min(len(b), i+r.IntN(40))]...)
		}
	}
	// A lock that locks is no defect, and a forgotten login neither.
	for _, done := range []string{"POST /v1/lock", "POST /v1/unlock", "POST /v1/protect", `"profile":""`, `"profile":"default"`, "/v1/events"} {
		if bytes.Contains(b, []byte(done)) {
			return []byte(seeds[0])
		}
	}
	return b
}

// fuzz sends n requests over a few connections at a time. Each is sent whole,
// and its answer is waited for only so long as shows that there is one.
func (w *world) fuzz(n int) (answers map[string]int) {
	answers = map[string]int{}
	var mu sync.Mutex
	const lanes = 8
	var all sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for lane := range lanes {
		all.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(lane)))
			buf := make([]byte, 64<<10)
			for left.Add(-1) >= 0 {
				c := w.dial()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = c.Write(mutate(r)) // it may be refused in the middle
				if r.IntN(2) == 0 {
					_ = c.(*net.UnixConn).CloseWrite()
				} else {
					_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
				}
				n, _ := c.Read(buf)
				_ = c.Close()
				answer := "none"
				if n >= 12 {
					answer = string(buf[9:12])
				}
				mu.Lock()
				answers[answer]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return answers
}

// lorises holds n connections, each of which says a little now and then and is
// opened again when it is closed.
func (w *world) lorises(n int, d time.Duration) {
	var all sync.WaitGroup
	end := time.Now().Add(d)
	var closed atomic.Int64
	for i := range n {
		all.Go(func() {
			said := seeds[i%len(seeds)]
			for time.Now().Before(end) {
				c, err := net.Dial("unix", w.socket())
				if err != nil {
					time.Sleep(10 * time.Millisecond) // the backlog is full
					continue
				}
				for j := 0; j < len(said)-3 && time.Now().Before(end); j++ {
					if _, err := io.WriteString(c, said[j:j+1]); err != nil {
						closed.Add(1)
						break
					}
					time.Sleep(200 * time.Millisecond)
				}
				_ = c.Close()
			}
		})
	}
	all.Wait()
	w.t.Logf("%d slow-loris connections were closed and came again", closed.Load())
}

// passDescriptors sends n descriptors along with requests, whole and cut.
func (w *world) passDescriptors(n int) {
	w.t.Helper()
	null, err := os.Open(os.DevNull)
	must(w.t, err)
	defer func() { _ = null.Close() }()
	rights := make([]int, 200)
	for i := range rights {
		rights[i] = int(null.Fd())
	}
	least := time.Now().Add(time.Second) // so that the caller meets it
	for sent := 0; sent < n || time.Now().Before(least); sent += len(rights) {
		c := w.dial()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		said := seeds[sent/len(rights)%len(seeds)]
		if sent/len(rights)%2 == 0 {
			said = said[:len(said)/2]
		}
		_, _, _ = c.(*net.UnixConn).WriteMsgUnix([]byte(said), syscall.UnixRights(rights...), nil) // it may have been closed
		_ = c.(*net.UnixConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
}

// halfClose ends n connections at every byte of a request, and never reads.
func (w *world) halfClose(n int) {
	for i := range n {
		c := w.dial()
		said := seeds[i%len(seeds)]
		_, _ = io.WriteString(c, said[:i%len(said)])
		_ = c.(*net.UnixConn).CloseWrite()
		if i%3 > 0 {
			defer func() { _ = c.Close() }() // it stays for a while
			continue
		}
		_ = c.Close()
	}
	time.Sleep(time.Second)
}

// With hardly any descriptors the token is served and replaced, whoever holds
// connections.
func TestThirtyTwoDescriptors(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.through("ulimit -n 32")
	w.start("--store", "file", "--log-level", "info")
	w.login()
	for range 100 {
		c, err := net.Dial("unix", w.socket())
		must(t, err)
		defer func() { _ = c.Close() }()
	}
	caller := w.rightful()
	time.Sleep(time.Second)
	caller.phase("32 descriptors")
	w.must("", "bloq-agent", "refresh")
	w.must("", "bloq-agent", "lock")
	w.must("", "bloq-agent", "unlock")
	caller.finish()
	w.must("", "bloq-token")
	t.Logf("%d descriptors are open", descriptors(t, w.daemon.Process.Pid))
}

func TestAFullDiskServesTheToken(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	begin, end := fullDisk(t, w)
	w.start("--store", "file", "--log-level", "info")
	w.login()
	begin()
	caller := w.rightful()
	time.Sleep(time.Second)
	w.must("", "bloq-agent", "status")
	caller.phase("disk full")
	caller.finish()
	end()
	w.must("", "bloq-agent", "refresh")
}

func TestBusyProcesses(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory", "--log-level", "info")
	w.login()
	for range 16 {
		busy := exec.Command("sh", "-c", "while :; do :; done")
		must(t, busy.Start())
		defer func() {
			_ = busy.Process.Kill()
			_ = busy.Wait()
		}()
	}
	var took []time.Duration
	for range 20 {
		start := time.Now()
		w.must("", "bloq-token")
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("beside 16 busy processes the helper takes %v (median of 20), %v at most", took[10].Round(time.Millisecond), took[19].Round(time.Millisecond))
	if took[10] > 2*time.Second {
		t.Errorf("%v", took)
	}
}
