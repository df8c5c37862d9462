package sink

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func env() []string { return []string{"PATH=" + os.Getenv("PATH")} }

func TestACommandIsAnArgvAndNoShellReadsIt(t *testing.T) {
	out, err := run(t.Context(), []string{"printf", "%s|", "$HOME", "a b", "`id`", ";", "*"}, env(), time.Minute)
	if want := "$HOME|a b|`id`|;|*|"; out != want || err != nil {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
	out, err = run(t.Context(), []string{"sh", "-c", "pwd; wc -c; exit 3"}, env(), time.Minute)
	if out != "/\n0\n" || err == nil || err.Error() != "exit status 3" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := run(t.Context(), []string{"no-such-command"}, env(), time.Minute); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("%v", err)
	}
}

func TestTheEnvironmentOfACommand(t *testing.T) {
	all := map[string]string{
		"PATH": "/bin", "HOME": "/h", "USER": "u", "LANG": "C", "XDG_RUNTIME_DIR": "/r", "DBUS_SESSION_BUS_ADDRESS": "unix:",
		"BLOQ_CLIENT_SECRET": "secret", "LD_PRELOAD": "x.so", "NOTIFY_SOCKET": "/n", "CREDENTIALS_DIRECTORY": "/c",
	}
	s := Sink{Profile: "work", Path: "/p/x"}
	got := strings.Join(s.environment(func(k string) string { return all[k] }), " ")
	want := "PATH=/bin HOME=/h USER=u LANG=C XDG_RUNTIME_DIR=/r DBUS_SESSION_BUS_ADDRESS=unix: BLOQ_SINK_PATH=/p/x BLOQ_PROFILE=work"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
	t.Setenv("BLOQ_TEST_SECRET", "secret")
	out, err := run(t.Context(), []string{"env"}, []string{"A=1", "PATH=" + os.Getenv("PATH")}, time.Minute)
	if err != nil || strings.Contains(out, "secret") || !strings.Contains(out, "A=1") {
		t.Errorf("%q, %v", out, err)
	}
}

// Not the command alone but what it started is killed.
func TestACommandIsKilledAfterItsTime(t *testing.T) {
	pids := t.TempDir() + "/pids"
	script := fmt.Sprintf("sleep 60 & echo $! >>%s; echo $$ >>%s; sleep 60", pids, pids)
	start := time.Now()
	_, err := run(t.Context(), []string{"sh", "-c", script}, env(), 500*time.Millisecond)
	if err == nil || err.Error() != "killed after 500ms" {
		t.Errorf("%v", err)
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("after %s", d)
	}
	wantDead(t, pids)
}

func TestACommandIsKilledWhenTheDaemonStops(t *testing.T) {
	pids := t.TempDir() + "/pids"
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // ends with the file
		for {
			if b, _ := os.ReadFile(pids); len(b) > 0 {
				cancel()
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	if _, err := run(ctx, []string{"sh", "-c", "echo $$ >" + pids + "; sleep 60"}, env(), time.Minute); err == nil {
		t.Error("it ended well")
	}
	wantDead(t, pids)
}

func wantDead(t *testing.T, pids string) {
	t.Helper()
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range strings.Fields(string(b)) {
		alive := true
		for deadline := time.Now().Add(10 * time.Second); alive && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			// Whoever inherits it may not have waited for it yet.
			alive = err == nil && !strings.Contains(string(stat), ") Z ")
		}
		if alive {
			t.Errorf("process %s lives on", pid)
		}
	}
}

// A command that leaves somebody in the background does not hold us.
func TestACommandWithAChildInTheBackground(t *testing.T) {
	start := time.Now()
	out, err := run(t.Context(), []string{"sh", "-c", "sleep 20 & echo done"}, env(), time.Minute)
	if out != "done\n" || err != nil || time.Since(start) > 15*time.Second {
		t.Errorf("%q, %v after %s", out, err, time.Since(start))
	}
}

func TestOutputIsBoundedAndHoldsNoToken(t *testing.T) {
	out, err := run(t.Context(), []string{"sh", "-c", "yes no | head -c 1000000"}, env(), time.Minute)
	if len(out) != maxOutput || err != nil {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhYmNkZWZnaCJ9.c2lnbmF0dXJlLW9mLWEtdG9rZW4tX18tLQ"
	for in, want := range map[string]string{
		"token " + jwt + "\n": "token […].[…].[…]\n",
		"reload of /etc/prometheus/targets.d failed: no such unit":                "reload of /etc/prometheus/targets.d failed: no such unit",
		"ZXlKaGJHY2lPaUpTVXpJMU5pSjkuZXlKemRXSWlPaUpoWW1Oa1pXWm5hQ0o5LmMybG5i+/8": "[…]",
	} {
		if got := redact([]byte(in)); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
