package callers

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"bloq-agent/ipc"
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

// named is a process that was looked up.
func named(executable, unit, parent string) *Process {
	p := &Process{looked: make(chan struct{}), executable: executable, unit: unit, parent: parent}
	close(p.looked)
	return p
}

func TestTheRingHoldsTheLast256Requests(t *testing.T) {
	var r Ring
	if programs, requests := r.List(); programs == nil || requests == nil || len(programs)+len(requests) > 0 {
		t.Errorf("at the start: %v, %v", programs, requests) // in JSON, [] and not null
	}
	git, docker := named("/bin/bloq-token", "a.scope", "git"), named("/bin/bloq-token", "a.scope", "dockerd")
	for i := range 1000 {
		r.Add(git, ipc.Request{PID: i, Asked: "git", Host: "github.com", Answer: "nothing"})
	}
	r.Add(docker, ipc.Request{PID: 7, Asked: "docker", Profile: "work", Answer: "token"})
	r.Add(named("/bin/curl", "", ""), ipc.Request{PID: 8, Asked: "token", Answer: "locked"})
	r.Add(&Process{looked: make(chan struct{})}, ipc.Request{PID: 9, Asked: "token", Answer: "token"})
	programs, requests := r.List()
	if len(requests) != 256 {
		t.Fatalf("%d requests", len(requests))
	}
	var got []string
	for _, q := range requests[:4] {
		got = append(got, fmt.Sprint(q.PID, q.Executable, q.Unit, q.For, q.Asked, q.Profile, q.Host, q.Answer, q.Time.IsZero()))
	}
	want := []string{
		fmt.Sprint(9, "", "", "", "token", "", "", "token", false),
		fmt.Sprint(8, "/bin/curl", "", "", "token", "", "", "locked", false),
		fmt.Sprint(7, "/bin/bloq-token", "a.scope", "dockerd", "docker", "work", "", "token", false),
		fmt.Sprint(999, "/bin/bloq-token", "a.scope", "git", "git", "", "github.com", "nothing", false),
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(programs) != 3 || programs[0].PID != 9 || programs[1].Executable != "/bin/curl" {
		t.Fatalf("%+v", programs)
	}
	helper := programs[2]
	if helper.PID != 7 || helper.Requests["docker"] != 1 || helper.Requests["git"] != 253 || !helper.LastSeen.Equal(requests[2].Time) {
		t.Errorf("%+v", helper)
	}
}

func TestThirtyTwoProgramsAreListed(t *testing.T) {
	var r Ring
	for i := range 100 {
		r.Add(named(fmt.Sprint("/bin/", i), "", ""), ipc.Request{Asked: "token"})
	}
	programs, _ := r.List()
	if len(programs) != 32 || programs[0].Executable != "/bin/99" || programs[31].Executable != "/bin/68" {
		t.Errorf("%d: %+v", len(programs), programs)
	}
}

// Every program chooses its names. None can keep the others from being shown.
func TestTheLongestAnswerIsAccepted(t *testing.T) {
	var r Ring
	for i := range size {
		worst := bounded(fmt.Sprintf("%03d", i) + strings.Repeat("\x01", 5000))
		r.Add(named(worst, worst, bounded(strings.Repeat("<", 15))), ipc.Request{
			PID: 1 << 22, Asked: "terraform", Profile: strings.Repeat("p", 64), Host: strings.Repeat("h", 259), Answer: "unknown_profile",
		})
	}
	programs, requests := r.List()
	for i := range programs {
		for asked := range 25 {
			programs[i].Requests[fmt.Sprint("terraform", asked)] = 1
		}
	}
	answer, err := json.Marshal(ipc.Callers{Callers: programs, Recent: requests})
	if err != nil || len(answer) > ipc.MaxAnswer {
		t.Errorf("%d bytes, %v", len(answer), err)
	}
	t.Logf("%d bytes of %d", len(answer), ipc.MaxAnswer)
}

// A script that asks a thousand times a second is not slowed down for this, and
// waits for nobody.
func TestFewCallersASecondAreLookedUp(t *testing.T) {
	for name, run := range map[string]bool{"with Run": true, "while /proc is stuck": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r Ring
				if run {
					go r.Run(t.Context())
				} else {
					r.queue = make(chan *Process, maxLooks)
				}
				synctest.Wait()
				start := time.Now()
				for range 1000 { // each is another process: none was recorded
					r.Meet(os.Getpid(), never, false)
					time.Sleep(2 * time.Millisecond)
				}
				if took := time.Since(start); took != 2*time.Second {
					t.Errorf("requests have waited for %v", took-2*time.Second)
				}
				if !run {
					return
				}
				looked := 0
				for range 1000 {
					p := r.Meet(os.Getpid(), never, false)
					synctest.Wait()
					if p.executable != "" {
						looked++
					}
					time.Sleep(2 * time.Millisecond)
				}
				if looked != 2*maxLooks {
					t.Errorf("%d were looked up in 2 s", looked)
				}
			})
		})
	}
}

// never is an uptime that no process is younger than.
const never = time.Duration(1<<63-1) - tick

// One that asks a hundred times a second is looked up once in that time.
func TestABusyCallerIsLookedUpOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Ring
		go r.Run(t.Context())
		synctest.Wait()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		met := map[*Process]bool{}
		for range 300 {
			p := r.Meet(os.Getpid(), never, false)
			met[p] = true
			r.Add(p, ipc.Request{PID: os.Getpid(), Asked: "token"})
			time.Sleep(10 * time.Millisecond)
		}
		programs, _ := r.List()
		if len(met) != 3 || len(programs) != 1 || programs[0].Executable != exe || programs[0].Requests["token"] != size {
			t.Errorf("looked up %d times: %+v", len(met), programs)
		}
		if r.Meet(os.Getpid(), never, true) == r.Meet(os.Getpid(), never, false) {
			t.Error("a helper was met, and its parent is not looked up")
		}
	})
}

// child is a process of ours that waits.
func child(t *testing.T) int {
	t.Helper()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("there is no /proc here")
	}
	c := exec.Command("sleep", "600")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c.Process.Pid
}

func lookUp(pid int, uptime time.Duration, helper bool) (q ipc.Request) {
	p := &Process{pid: pid, uptime: uptime, helper: helper, looked: make(chan struct{})}
	p.look("/proc")
	p.Name(&q)
	return q
}

func TestTheParentOfAHelperIsNamed(t *testing.T) {
	pid := child(t)
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if q := lookUp(pid, never, true); filepath.Base(q.Executable) == "" || q.For != strings.TrimSpace(string(comm)) {
		t.Errorf("a helper: %+v", q)
	}
	if q := lookUp(pid, never, false); q.Executable == "" || q.For != "" {
		t.Errorf("another program: %+v", q)
	}
}

// Its number was another's when that connected: who that was is not known any
// more.
func TestAReusedIDIsNotNamed(t *testing.T) {
	pid := child(t)
	caller, err := read("/proc", pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, earlier := range []time.Duration{2 * tick, time.Second, caller.start} {
		if q := lookUp(pid, caller.start-earlier, true); q != (ipc.Request{}) {
			t.Errorf("it connected %v before %+v began", earlier, q)
		}
	}
	if q := lookUp(pid, caller.start, true); q.Executable == "" {
		t.Error("it connected as soon as it had begun, and has no name")
	}
	if q := lookUp(1<<30, never, true); q != (ipc.Request{}) {
		t.Errorf("a process that has ended is %+v", q)
	}
}

// fakeProc is /proc with processes that are hard to come by.
func fakeProc(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func stat(pid int, name string, parent, start int) string {
	return fmt.Sprintf("%d (%s) S %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0\n", pid, name, parent, start)
}

func TestWhoAProcessSaysItIs(t *testing.T) {
	for name, tt := range map[string]struct {
		files    map[string]string
		self, by string
	}{
		"a helper of git": {map[string]string{
			"7/stat": stat(7, "bloq-token", 5, 100), "7/comm": "bloq-token\n", "5/stat": stat(5, "git", 1, 90), "5/comm": "git\n",
		}, "bloq-token", "git"},
		"a name like the rest of a line": {map[string]string{
			"7/stat": stat(7, "x) S 6 (", 5, 100), "7/comm": "x) S 6 (\n", "5/stat": stat(5, "git", 1, 90), "5/comm": "git\n", "6/stat": stat(6, "bad", 1, 90), "6/comm": "bad\n",
		}, "x) S 6 (", "git"},
		"a parent that ended, whose ID a younger process has": {map[string]string{
			"7/stat": stat(7, "bloq-token", 5, 100), "7/comm": "bloq-token\n", "5/stat": stat(5, "other", 1, 101), "5/comm": "other\n",
		}, "bloq-token", ""},
		"a hidden parent":        {map[string]string{"7/stat": stat(7, "bloq-token", 5, 100), "7/comm": "bloq-token\n"}, "bloq-token", ""},
		"a stat that is cut off": {map[string]string{"7/stat": "7 (bloq-token) S 5", "7/comm": "bloq-token\n"}, "", ""},
		"no stat":                {map[string]string{"7/comm": "bloq-token\n"}, "", ""},
		"an empty stat":          {map[string]string{"7/stat": "", "7/comm": "bloq-token\n"}, "", ""},
		"a name that is no text": {map[string]string{
			"7/stat": stat(7, "\xff", 5, 100), "7/comm": "\xff\xfe\n", "5/stat": stat(5, "\xff", 1, 90), "5/comm": strings.Repeat("\xc3", 500) + "\n",
		}, "?", "?"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Process{pid: 7, uptime: 100 * tick, helper: true, looked: make(chan struct{})}
			p.look(fakeProc(t, tt.files))
			var q ipc.Request
			if p.Name(&q); q.Executable != tt.self || q.For != tt.by {
				t.Errorf("%q for %q, want %q for %q", q.Executable, q.For, tt.self, tt.by)
			}
		})
	}
}

func BenchmarkMeetAndAdd(b *testing.B) {
	var r Ring
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	go r.Run(ctx)
	for i := range b.N {
		r.Add(r.Meet(i, never, true), ipc.Request{PID: i, Asked: "git"})
	}
}
