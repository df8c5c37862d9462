package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// foreign is what lock and logout say of a file that is not the daemon's.
func foreign(path string) string {
	return "the file " + path + " is there, bloq-agent did not write it, and it may hold a token"
}

// A file that somebody else has made, at a path that the configuration names, is
// neither replaced nor removed, and config check says so beforehand: a mistake in
// a path must not cost a .netrc.
func TestASinkTakesNobodysPlace(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	path := dir + "/.netrc"
	const theirs = "machine example.org login me password mine\n"
	must(t, os.WriteFile(path, []byte(theirs), 0o600))
	must(t, os.WriteFile(dir+"/empty", nil, 0o600))
	before, _ := os.Lstat(path)
	w.configure(fmt.Sprintf(tokenSink+tokenSink+tokenSink, ".netrc", "empty", "good"))
	said := func(name string) string {
		return dir + "/" + name + " is there already, and bloq-agent did not write it; rm " + dir + "/" + name + ", or name another path"
	}
	check := func() result { return w.run("", "bloq-agent", "config", "check") }
	if r := check(); r.code != ipc.ExitUnavailable || !strings.Contains(r.stderr, said(".netrc")) || !strings.Contains(r.stderr, said("empty")) {
		t.Errorf("config check: %+v", r)
	}

	w.start("--store", "file")
	w.login()
	w.eventually("the sink beside them", w.holdsToken(dir+"/good"))
	w.must("", "bloq-agent", "refresh")
	w.wants(w.run("", "bloq-agent", "lock"), ipc.ExitUnavailable, "locked, but "+foreign(path)+"; "+foreign(dir+"/empty"), "rm "+path+" "+dir+"/empty")
	w.must("", "bloq-agent", "unlock")
	w.eventually("status says so", func() bool {
		r := w.run("", "bloq-agent", "status")
		return strings.Contains(r.stdout, "sink "+path+": "+said(".netrc")) && strings.Contains(r.stdout, said("empty"))
	})
	after, err := os.Lstat(path)
	if err != nil || !os.SameFile(before, after) || content(path) != theirs || content(dir+"/empty") != "" {
		t.Errorf("the file is another now: %v", err)
	}
	// The running daemon's own file is nobody else's.
	if r := check(); strings.Contains(r.stderr, "good") {
		t.Errorf("config check: %+v", r)
	}

	// What the sentence says mends it.
	w.mustSh("rm " + path + " " + dir + "/empty")
	must(t, w.daemon.Process.Signal(hup))
	w.eventually("the sink", w.holdsToken(path))
	w.must("", "bloq-agent", "config", "check")

	// Without the record nobody knows whose they are.
	w.stop()
	must(t, os.Remove(w.dir+"/state/bloq-agent/sinks.json"))
	if r := check(); r.code != ipc.ExitUnavailable || !strings.Contains(r.stderr, said("good")) {
		t.Errorf("config check: %+v", r)
	}
	old := content(path)
	w.start("--store", "file")
	w.eventually("status says so", func() bool {
		return strings.Contains(w.run("", "bloq-agent", "status").stdout, said(".netrc"))
	})
	w.wants(w.run("", "bloq-agent", "logout"), ipc.ExitUnavailable,
		"forgot profile default, but "+foreign(path)+"; "+foreign(dir+"/empty")+"; "+foreign(dir+"/good"), "rm "+path+" ")
	if content(path) != old {
		t.Error("a file that is nobody's was replaced or removed")
	}
}

// A copy of a token file in its place, and one without its record, may hold a
// token still: lock says so, and status afterwards, until it is gone.
func TestLockNamesAFileThatIsNotItsOwn(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(w *world, path string)
		also   string
	}{
		"sed -i": {func(w *world, path string) { w.mustSh("sed -i s/^/#/ " + path) }, ""},
		"no sinks.json": {func(w *world, _ string) {
			w.stop()
			must(w.t, os.Remove(w.dir+"/state/bloq-agent/sinks.json"))
			w.start("--store", "file")
		}, ""},
		"a sinks.json that is damaged": {func(w *world, _ string) {
			w.stop()
			must(w.t, os.WriteFile(w.dir+"/state/bloq-agent/sinks.json", []byte(`[{"path":`), 0o600))
			w.start("--store", "file")
		}, "; the list of the token files that bloq-agent wrote could not be read (%s/state/bloq-agent/sinks.json: unexpected end of JSON input)"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{})
			path := w.sinkDir() + "/x"
			w.configure(fmt.Sprintf(tokenSink, "x"))
			w.start("--store", "file")
			w.login()
			w.eventually("the file", w.holdsToken(path))
			tt.change(w, path)
			also := strings.ReplaceAll(tt.also, "%s", w.dir)
			for range 2 {
				w.wants(w.run("", "bloq-agent", "lock"), ipc.ExitUnavailable, "locked, but "+foreign(path)+also, "rm "+path)
				r := w.run("", "bloq-agent", "status")
				if !strings.Contains(r.stdout, path+" is there already, and bloq-agent did not write it; rm "+path) {
					t.Errorf("status does not name it:\n%s", r.stdout)
				}
			}
			w.must("", "bloq-agent", "unlock")
			w.wants(w.run("", "bloq-agent", "logout"), ipc.ExitUnavailable, "forgot profile default, but "+foreign(path)+also, "rm "+path)
			if r := w.run("", "bloq-agent", "status"); !strings.Contains(r.stdout, path) {
				t.Errorf("status does not name it:\n%s", r.stdout)
			}
			w.mustSh("rm " + path)
			w.must("", "bloq-agent", "lock")
			if r := w.run("", "bloq-agent", "status"); strings.Contains(r.stdout, path) {
				t.Errorf("status names what is gone:\n%s", r.stdout)
			}
		})
	}
}

// A file that somebody has written to since may hold a token still: lock leaves it
// and says so, and the next daemon says it again.
func TestLockNamesAFileThatWasChanged(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	path := w.sinkDir() + "/x"
	w.configure(fmt.Sprintf(tokenSink, "x"))
	w.start("--store", "file")
	w.login()
	w.eventually("the file", w.holdsToken(path))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("# mine\n")
	must(t, err)
	must(t, f.Close())
	changed := content(path)
	locked := "the token file " + path + " was changed after bloq-agent wrote it and may still hold a token"
	w.wants(w.run("", "bloq-agent", "lock"), ipc.ExitUnavailable, "locked, but "+locked, "rm "+path)
	w.stop()
	w.start("--store", "file")
	w.wants(w.run("", "bloq-agent", "lock"), ipc.ExitUnavailable, "locked, but "+locked, "rm "+path)
	// It is not replaced either.
	w.must("", "bloq-agent", "unlock")
	w.eventually("status says what to type", func() bool {
		return strings.Contains(w.run("", "bloq-agent", "status").stdout, path+" was changed after bloq-agent wrote it; rm "+path)
	})
	if content(path) != changed {
		t.Error("it was replaced")
	}
	w.mustSh("rm " + path)
	must(t, w.daemon.Process.Signal(hup))
	w.eventually("the file", w.holdsToken(path))
	w.must("", "bloq-agent", "lock")
	if !w.gone(path)() {
		t.Error("lock left a token")
	}
}
