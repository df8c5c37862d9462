package daemon

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"bloq-agent/daemon/notifytest"
)

func notifyManager(t *testing.T) *notifytest.Manager {
	t.Helper()
	m := notifytest.New(t, 3)
	t.Setenv("NOTIFY_SOCKET", m.Path)
	return m
}

func keptList(tokens ...string) []keptToken {
	var list []keptToken
	for i, tok := range tokens {
		list = append(list, keptToken{ID: fmt.Sprint(i), Generation: 7, Token: []byte(tok), Expiry: time.Now().Add(time.Hour)})
	}
	return list
}

// just gathers list, each time anew: the keeper wipes it.
func just(list []keptToken) func() []keptToken {
	return func() []keptToken {
		out := slices.Clone(list)
		for i := range out {
			out[i].Token = slices.Clone(out[i].Token)
		}
		return out
	}
}

func TestTokensOutliveTheDaemon(t *testing.T) {
	m := notifyManager(t)
	k := newTokenKeeper(newFDStore())
	for i := range 5 { // the names alternate
		do(t, k.keep(just(keptList(fmt.Sprint("token-", i), "other"))))
		if files := m.Held(t); len(files) != 1 {
			t.Fatalf("systemd holds %d files", len(files))
		}
	}
	for range 3 { // a daemon after the other, which keeps in its turn
		k = newTokenKeeper(newFDStore())
		list, err := k.takeKept(m.Held(t))
		if err != nil || len(list) != 2 || string(list[0].Token) != "token-4" || list[0].Generation != 7 {
			t.Fatalf("%v, %v", list, err)
		}
		do(t, k.keep(just(list)))
	}
	do(t, k.keep(just(nil)))
	if files := m.Held(t); len(files) != 0 {
		t.Errorf("after there is nothing to keep systemd holds %d files", len(files))
	}
	if got := k.state(); got != "nothing to keep" {
		t.Error(got)
	}
}

// A crash between the two halves of a change leaves both files: the newer counts.
func TestOfTwoFilesTheNewerCounts(t *testing.T) {
	m := notifyManager(t)
	k := newTokenKeeper(newFDStore())
	do(t, k.keep(just(keptList("old"))))
	do(t, k.store.put(name(1-k.slot), mustEncode(t, kept{Version: keptVersion, Serial: 9, Profiles: keptList("new")})))
	next := newTokenKeeper(newFDStore())
	list, err := next.takeKept(m.Held(t))
	if err != nil || len(list) != 1 || string(list[0].Token) != "new" {
		t.Errorf("%v, %v", list, err)
	}
	do(t, next.keep(just(keptList("newest"))))
	if files := m.Held(t); len(files) != 1 {
		t.Errorf("systemd holds %d files", len(files))
	}
}

// Whatever was left under either name goes when there is nothing to keep: by a
// crash between the two halves of a change, or by one that failed.
func TestNothingToKeepLeavesNothing(t *testing.T) {
	m := notifyManager(t)
	k := newTokenKeeper(newFDStore())
	do(t, k.keep(just(keptList("old"))))
	do(t, k.store.put(name(1-k.slot), mustEncode(t, kept{Version: keptVersion, Serial: 9, Profiles: keptList("new")})))
	next := newTokenKeeper(newFDStore())
	_, err := next.takeKept(m.Held(t))
	do(t, err)
	do(t, next.keep(just(nil)))
	if files := m.Held(t); len(files) != 0 {
		t.Errorf("two files before: %d are left", len(files))
	}
	do(t, next.keep(just(keptList("token"))))
	broken := &failingStore{fdStore: next.store, fail: 1}
	next.store = broken
	if err := next.keep(just(keptList("newer"))); err == nil {
		t.Error("a store that fails is not told of")
	}
	do(t, next.keep(just(nil)))
	if files := m.Held(t); len(files) != 0 {
		t.Errorf("after a push that failed: %d are left", len(files))
	}
}

// A failingStore's first removals fail.
type failingStore struct {
	fdStore
	fail int
}

func (f *failingStore) remove(name string) error {
	if f.fail > 0 {
		f.fail--
		return errors.New("busy")
	}
	return f.fdStore.remove(name)
}

// What is held cannot be changed behind our back, and damage is not believed.
func TestAKeptFileIsSealed(t *testing.T) {
	m := notifyManager(t)
	do(t, newTokenKeeper(newFDStore()).keep(just(keptList("token"))))
	f := m.Held(t)[0]
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it can be written")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("it can be cut")
	}
	do(t, f.Close())
	damaged, err := os.CreateTemp(t.TempDir(), "")
	do(t, err)
	_, err = damaged.WriteString(`{"version":1,"serial":99,"profiles":[{"token":"secret`)
	do(t, err)
	list, err := newTokenKeeper(nil).takeKept([]*os.File{damaged})
	if err == nil || list != nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v, %v", list, err)
	}
}

func TestWithoutSystemdNothingIsKept(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	k := newTokenKeeper(newFDStore())
	do(t, k.keep(just(keptList("token"))))
	if got := k.state(); !strings.HasPrefix(got, "no: ") {
		t.Error(got)
	}
}

func TestAManagerThatIsGoneIsSaid(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", t.TempDir()+"/none")
	k := newTokenKeeper(newFDStore())
	if err := k.keep(just(keptList("token"))); err == nil {
		t.Error("kept by nobody")
	}
	if got := k.state(); !strings.HasPrefix(got, "no: ") {
		t.Error(got)
	}
}
