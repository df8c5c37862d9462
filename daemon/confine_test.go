package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/daemon/config"
	"bloq-agent/daemon/sink"
	"bloq-agent/store"
)

// What can be written is ours, the sinks' and what is left of sinks, so far as
// it is there.
func TestWhatMustBeWritable(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"state", "key", "sink", "old"} {
		do(t, os.Mkdir(at(name), 0o700))
	}
	do(t, os.WriteFile(at("state/sinks.json"), []byte(`[{"path":"`+at("old/token")+`","profile":"x","files":[]}]`), 0o600))
	d := &Daemon{options: Options{StateDir: at("state"), Writes: []string{at("key")}}}
	d.config.current.Store(&loaded{Config: config.Config{Profiles: map[string]config.Profile{
		"default": {Sinks: []sink.Sink{{Path: at("sink/a")}, {Path: at("sink/b")}, {Path: at("later/c")}}},
	}}})
	defer d.sinks.Start(sink.Options{
		Record:  sinksRecord(d.options.StateDir),
		Save:    store.WriteFile,
		Wanted:  func() ([]sink.Sink, bool) { return nil, false },
		Content: func(sink.Sink) sink.Content { return sink.Content{} },
		Explain: func(_ string, err error) error { return err },
		On:      func(e sink.Event) { t.Error(e) },
	})()
	want := []string{at("state"), at("key"), at("sink"), at("old")}
	if got := d.writable(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestADirectoryOutsideNeedsARestart(t *testing.T) {
	d := &Daemon{}
	if d.needsRestart("/anywhere") {
		t.Error("before the start")
	}
	d.confined.Store(&confinement{reason: errors.New("no kernel for it")})
	if d.needsRestart("/anywhere") {
		t.Error("nothing is confined")
	}
	d.confined.Store(&confinement{abi: 5, dirs: []string{"/run/a", "/home/u/state"}})
	for path, want := range map[string]bool{
		"/run/a": false, "/run/a/b/c": false, "/home/u/state/x": false, "/run/a/..b": false,
		"/run": true, "/run/ab": true, "/run/a/../b": true, "/home/u": true, "/": true,
	} {
		if got := d.needsRestart(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// A file that cannot be changed (chattr +i) is no matter of the confinement.
func TestAFileThatCannotBeChangedNeedsNoRestart(t *testing.T) {
	dir := t.TempDir()
	d := &Daemon{}
	d.confined.Store(&confinement{abi: 5, dirs: []string{dir}})
	files := tokenFiles{d}
	for _, path := range []string{dir + "/x", t.TempDir() + "/x"} {
		err := error(&os.PathError{Op: "remove", Path: path, Err: syscall.EPERM})
		if got := files.explain(path, err); got != err {
			t.Errorf("%v", got)
		}
		err = &os.PathError{Op: "remove", Path: path, Err: syscall.EACCES}
		if got := files.explain(path, err); !strings.HasSuffix(got.Error(), "; restart it") {
			t.Errorf("%v", got)
		}
	}
}

func TestTheStatusTellsThatListenersAreUnknown(t *testing.T) {
	d := &Daemon{}
	d.confined.Store(&confinement{loopback: errors.New("nobody tells")})
	if got := d.hardening().Loopback; got != "nobody tells" {
		t.Errorf("%q", got)
	}
}
