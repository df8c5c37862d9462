package profile

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
)

// A caller's time never decides what another one sees: neither that of one who
// does not wait at all, nor that of one who has gone away. (invariant 3)
func TestACallersTimeIsItsOwn(t *testing.T) {
	at := newPlace(t)
	p, file := waiting(t, at, func(_ *place, file string) error { return os.Chmod(file, 0o644) })
	problem := p.state.Load().problem
	known := len(at.of(Changed))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, wait := range []context.Context{expired(t), gone} {
		do(t, os.Chmod(file, 0o604)) // something to look at again
		_, err := p.Token(wait, 0)
		wantKind(t, err, Configuration)
		_ = p.Refresh(wait)
		_, _, _ = p.AccountToken(wait)
		do(t, os.Chmod(file, 0o640))
		_, err = p.Token(t.Context(), 0)
		wantKind(t, err, Configuration)
	}
	for _, e := range append(at.of(Changed)[known:], Event{Err: problem}, Event{Err: p.state.Load().problem}) {
		if e.Err != nil && (strings.Contains(e.Err.Error(), "context") || !strings.Contains(e.Err.Error(), "mode 06")) {
			t.Errorf("published: %v", e.Err)
		}
	}
	// A caller who does not wait is no reason not to look.
	do(t, os.Chmod(file, 0o600))
	_, _ = p.Token(expired(t), 0)
	at.until(t, "it serves", func() bool { return p.state.Load().phase == Serving })
}

// What the hint says is done, and the next request is answered: no look that came
// before it, and no pause between looks, stands in between.
func TestWhatTheHintMendsIsSeenAtOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil, mend func(at *place, file string) error
	}{
		"mode of the item": {
			func(_ *place, f string) error { return os.Chmod(f, 0o644) }, func(_ *place, f string) error { return os.Chmod(f, 0o600) },
		},
		"mode of the directory": {
			func(p *place, _ string) error { return os.Chmod(p.state(), 0o777) }, func(p *place, _ string) error { return os.Chmod(p.state(), 0o700) },
		},
		"mode of a directory above": {
			func(p *place, _ string) error { return os.Chmod(p.dir, 0o777) }, func(p *place, _ string) error { return os.Chmod(p.dir, 0o700) },
		},
		"mode of the key": {
			func(p *place, _ string) error { return os.Chmod(p.dir+"/key/identity.txt", 0o644) },
			func(p *place, _ string) error { return os.Chmod(p.dir+"/key/identity.txt", 0o600) },
		},
		"mode of the key's directory": {
			func(p *place, _ string) error { return os.Chmod(p.dir+"/key", 0o777) },
			func(p *place, _ string) error { return os.Chmod(p.dir+"/key", 0o700) },
		},
		"no item": {
			func(_ *place, f string) error { return os.Rename(f, f+"x") }, func(_ *place, f string) error { return os.Rename(f+"x", f) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			at := newPlace(t)
			p, file := waiting(t, at, tt.spoil)
			for range 3 { // looks in vain
				if _, err := p.Token(t.Context(), 0); err == nil {
					t.Fatal("there is a token")
				}
			}
			do(t, tt.mend(at, file))
			if _, err := p.Token(t.Context(), 0); err != nil {
				t.Errorf("after the mending: %v", err)
			}
		})
	}
}

// waiting is a login in the file store that cannot be read after spoil. Nobody
// looks at its file without being asked to.
func waiting(t *testing.T, at *place, spoil func(at *place, file string) error) (p *Profile, file string) {
	t.Helper()
	e := newEndpoint(t, sandbox.Config{})
	s := at.open(t)
	s.pause = func(int) time.Duration { return time.Hour }
	p = s.logIn(t, e, "work", "file")
	file = filepath.Join(at.state(), p.record().ID+".age")
	do(t, s.Lock(false))
	do(t, spoil(at, file))
	_ = s.Unlock(nil)
	if phase := p.state.Load().phase; phase != Waiting {
		t.Fatalf("phase %d", phase)
	}
	return p, file
}

func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	t.Cleanup(cancel)
	return ctx
}
