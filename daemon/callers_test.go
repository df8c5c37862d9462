package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"bloq-agent/ipc"
	"bloq-agent/ipc/server"

	"github.com/rs/zerolog"
)

func TestUnitOf(t *testing.T) {
	for cgroup, want := range map[string]string{
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope\n": "vte-spawn-1.scope",
		"0::/system.slice/nginx.service\n":                                               "nginx.service",
		"0::/system.slice/nginx.service/worker\n":                                        "nginx.service",
		"12:cpu:/x.service\n1:name=systemd:/user.slice/session-2.scope\n0::/\n":          "session-2.scope",
		"1:name=systemd:/system.slice/old.service\n0::/system.slice/new.service\n":       "new.service",
		"0::/\n": "", "": "", "nonsense": "", "0::/a/b:c.service\n": "b:c.service",
	} {
		if got := unitOf(cgroup); got != want {
			t.Errorf("%q: %q, want %q", cgroup, got, want)
		}
	}
}

func FuzzUnitOfIsAPartOfOneLine(f *testing.F) {
	f.Add("0::/user.slice/user@1000.service/app.slice/x.scope\n")
	f.Add("1:name=systemd:/system.slice/x.service\n0::/\n")
	f.Add("0::/\xff.service")
	f.Fuzz(func(t *testing.T, cgroup string) {
		unit := unitOf(cgroup)
		if strings.ContainsAny(unit, "/\n") || !strings.Contains(cgroup, unit) {
			t.Fatalf("%q of %q", unit, cgroup)
		}
		if b := bounded(unit); !utf8.ValidString(b) || len(b) > maxName {
			t.Fatalf("%q is bounded to %q", unit, b)
		}
	})
}

func TestThirtyTwoCallersAreRemembered(t *testing.T) {
	var c callers
	now := time.Now()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		// As if each of the processes had run another program.
		pid := 1_000_000 + i
		c.byPID = map[int]knownProcess{pid: {program{executable: fmt.Sprint("/bin/", i)}, now}}
		c.note(pid, "token", now.Add(time.Duration(i)*time.Millisecond))
	}
	c.note(os.Getpid(), "git", now.Add(time.Second))
	c.note(os.Getpid(), "git", now.Add(time.Second))
	c.note(os.Getpid(), "token", now.Add(2*time.Second))
	list := c.list()
	if len(list) != maxCallers || len(c.byPID) > maxCallers {
		t.Fatalf("%d programs, %d processes", len(list), len(c.byPID))
	}
	if first := list[0]; first.Executable != exe || first.PID != os.Getpid() || first.Requests["git"] != 2 || first.Requests["token"] != 1 {
		t.Errorf("%+v", first)
	}
	if list[1].Executable != "/bin/99" || list[31].Executable != "/bin/69" {
		t.Errorf("the last 32 are %s to %s", list[31].Executable, list[1].Executable)
	}
	if got := lookUp(1 << 30); got != (program{}) {
		t.Errorf("a process that has gone is %+v", got)
	}
}

// A script that asks a thousand times a second is not slowed down for this.
func TestFewProcessesASecondAreLookedUp(t *testing.T) {
	var c callers
	now := time.Now()
	for i := range 1000 {
		c.byPID = nil // each is another process
		c.note(os.Getpid(), "token", now.Add(time.Duration(i)*2*time.Millisecond))
	}
	for _, caller := range c.list() {
		if n := caller.Requests["token"]; caller.Executable != "" && n != 2*maxLooks {
			t.Errorf("%d were looked up in 2 s", n)
		}
	}
}

// A change is logged with who asked for it; a question is not, at this level.
func TestChangesAreLoggedWithTheirPeer(t *testing.T) {
	atLevel(t, zerolog.InfoLevel)
	var log sharedBuffer
	d := &Daemon{log: zerolog.New(&log)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/forget", func(w http.ResponseWriter, _ *http.Request) {
		tellProfile(w, "work")
		fail(w, &ipc.Problem{Code: ipc.CodeNeedsLogin, Detail: "no"})
	})
	mux.HandleFunc("POST /v1/adopt", func(w http.ResponseWriter, _ *http.Request) {
		tellQuestion(w, true)
		server.Reply(w, 200, "", nil)
	})
	mux.HandleFunc("POST /v1/lock", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := server.New(l, d.heard(d.logged(mux)), server.Hooks{})
	go func() { _ = s.Serve() }()
	defer func() { _ = s.Close() }()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	curl := exec.Command("curl", "-s", "--unix-socket", path, "-d", "", "http://x/v1/forget", "http://x/v1/adopt")
	if err := curl.Run(); err != nil {
		t.Fatal(err)
	}
	_ = exec.Command("curl", "-s", "--unix-socket", path, "-d", "", "http://x/v1/lock").Run() // it breaks
	deadline := time.Now().Add(5 * time.Second)
	for strings.Count(log.String(), "\n") < 2 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	_ = s.Close()
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"route":"forget","status":403`) || !strings.Contains(lines[1], `"route":"lock","status":0`) {
		t.Fatalf("%s", log.String())
	}
	var line struct {
		PID     int    `json:"peer_pid"`
		Exe     string `json:"peer_exe"`
		Profile string `json:"profile"`
		Code    string `json:"code"`
	}
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil || line.PID != curl.Process.Pid || filepath.Base(line.Exe) != "curl" || line.Profile != "work" || line.Code != "needs_login" {
		t.Errorf("%+v, %v", line, err)
	}
}

// A sharedBuffer is written by one goroutine and read by another.
type sharedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *sharedBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sharedBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestKindsOfRequestsAreBounded(t *testing.T) {
	for target, want := range map[string]string{
		"/v1/token?profile=x": "token", "/v1/dialect/header": "header", "/v1/dialect/nonsense": "unknown", "/v1/dialect/": "unknown",
		"/": "unknown", "/v1/tokens": "unknown", "/v1/callers": "callers", "/v1/": "unknown",
	} {
		if got := kindOf(httptest.NewRequest("GET", target, nil)); got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
}

func BenchmarkNoteOfANewProcess(b *testing.B) {
	var c callers
	for i := range b.N {
		c.note(os.Getpid(), "token", time.Unix(int64(i)*2, 0))
	}
}

func BenchmarkNoteOfAKnownProcess(b *testing.B) {
	var c callers
	now := time.Now()
	for range b.N {
		c.note(os.Getpid(), "token", now)
	}
}
