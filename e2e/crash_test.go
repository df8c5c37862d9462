package e2e

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
)

// crashSteps are the steps of one refresh at which a daemon can be killed, in
// their order. "file sync" and "file rename" are inside the save.
var crashSteps = []string{
	"before the intent", "after the intent", "after the reply", "before the save", "file sync", "file rename", "after the save", "after the publication",
}

// lossy are the steps between the whole reply of a strict endpoint and the
// rename that makes it durable: the one window that no client can close.
var lossy = []string{"after the reply", "before the save", "file sync"}

// A real daemon is killed at each step of a refresh, on endpoints that do not
// rotate, that do with a grace of 30 s, and that do strictly. The login is kept
// but in the one window, and with kept client keys it heals even there.
func TestAKillAtEachStepOfARefresh(t *testing.T) {
	seeds := 20
	if os.Getenv("BLOQ_SOAK") != "" {
		seeds = 200
	}
	armed := buildArmed(t)
	start := time.Now()
	for _, c := range []struct {
		name     string
		rotation sandbox.Rotation
		keys     bool
	}{
		{"no rotation", sandbox.Rotation{}, false},
		{"grace", sandbox.Rotation{On: true, Grace: 30 * time.Second}, false},
		{"strict", sandbox.Rotation{On: true}, false},
		{"strict, kept keys", sandbox.Rotation{On: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sandbox.Config{Rotation: c.rotation})
			w.crashes(armed, c.rotation, c.keys, seeds)
			t.Logf("%s: %v so far", c.name, time.Since(start).Round(time.Second))
		})
	}
}

// buildArmed builds a daemon with fail points.
func buildArmed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-tags", "failpoints", "-o", dir+"/", "../cmd/bloq-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "bloq-agent")
}

// crashes kills a daemon at each step, seeds times, and counts what became of
// the login.
func (w *world) crashes(armed string, rotation sandbox.Rotation, keys bool, seeds int) {
	strict := rotation.On && rotation.Grace == 0
	login := []string{"--store", "file"}
	if keys {
		login = append(login, "--keep-client-secret")
	}
	w.start()
	w.login(login...)
	w.stop()
	kept, lost, healed, shown := 0, 0, 0, 0
	for _, step := range crashSteps {
		inSave := step != "before the intent" && step != "after the intent" && step != "after the reply" && step != "after the publication"
		if inSave && !rotation.On {
			continue // nothing is saved there
		}
		window := strict && slices.Contains(lossy, step)
		for range seeds {
			ok, told, reused := w.crash(armed, step, 1+rand.IntN(3))
			switch {
			case !ok && (!window || keys):
				w.t.Errorf("killed %s: the login is lost\n%s", step, w.log.String())
			case !ok:
				lost++
			case window && keys:
				healed++
			case window:
				w.t.Errorf("killed %s: a strict endpoint took a spent token", step)
			default:
				kept++
			}
			if reused && !window {
				w.t.Errorf("killed %s: a refresh token was used again after its first use was answered and saved", step)
			}
			if told {
				shown++
			}
			if !ok {
				w.start()
				w.login(login...)
				w.stop()
			}
		}
	}
	w.t.Logf("%d logins kept, %d lost in the one window, %d healed there by kept client keys; %d starts said that a reply may be lost",
		kept, lost, healed, shown)
	if shown == 0 {
		w.t.Error("no start found an open intent")
	}
}

// crash kills a daemon at the nth time that it comes to a step, starts one
// anew, and reports whether the login works, whether the daemon told of a reply
// that may be lost, and whether the sandbox saw a spent refresh token.
func (w *world) crash(armed, step string, nth int) (ok, told, reused bool) {
	w.t.Helper()
	point := step + ":" + strconv.Itoa(nth)
	if strings.HasPrefix(step, "file ") { // of the item's file, and not of another
		point = "before the save:" + strconv.Itoa(nth) + ">" + step
	}
	daemon := w.command("bloq-agent", "serve", "--log-level", "debug", "--log-format", "json")
	daemon.Path = armed
	daemon.Env = append(slices.Clone(w.env), "BLOQ_FAILPOINT="+point)
	daemon.Stderr = &w.log
	if err := daemon.Start(); err != nil {
		w.t.Fatal(err)
	}
	died := make(chan error, 1)
	go func() { died <- daemon.Wait() }()
	if err := w.refreshUntil(died); !killed(err) {
		_ = daemon.Process.Kill()
		w.t.Fatalf("%s: the daemon was not killed there: %v\n%s", step, err, w.log.String())
	}
	before, length := w.api.Load().Stats().Reuse, len(w.log.String())
	w.start()
	ok = w.run("", "bloq-token").code == 0
	w.stop()
	return ok, w.log.contains(length, "may have been lost"), w.api.Load().Stats().Reuse != before
}

// refreshUntil makes refreshes until the daemon has died. The first is that of
// its start; until it listens they do nothing.
func (w *world) refreshUntil(died <-chan error) error {
	deadline := time.After(30 * time.Second)
	for {
		w.run("", "bloq-agent", "refresh")
		select {
		case err := <-died:
			return err
		case <-deadline:
			return errors.New("it lives after half a minute of refreshes")
		default:
		}
	}
}

func killed(err error) bool {
	var e *exec.ExitError
	if !errors.As(err, &e) {
		return false
	}
	status, ok := e.Sys().(syscall.WaitStatus)
	return ok && status.Signal() == syscall.SIGKILL
}
