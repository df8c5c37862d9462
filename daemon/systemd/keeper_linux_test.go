package systemd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
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

// just gathers value, each time anew: Keep clears it.
func just(value string) func() []byte {
	return func() []byte {
		if value == "" {
			return nil
		}
		return fmt.Appendf(nil, "%q", value)
	}
}

func TestBytesOutliveTheDaemon(t *testing.T) {
	m := notifyManager(t)
	k := NewKeeper()
	for i := range 5 { // the names alternate
		do(t, k.Keep(just(fmt.Sprint("token-", i))))
		if files := m.Held(t); len(files) != 1 {
			t.Fatalf("systemd holds %d files", len(files))
		}
	}
	for range 3 { // a daemon after the other, which keeps in its turn
		k = NewKeeper()
		data, err := k.Take(m.Held(t))
		if err != nil || string(data) != `"token-4"` {
			t.Fatalf("%s, %v", data, err)
		}
		do(t, k.Keep(just("token-4")))
	}
	do(t, k.Keep(just("")))
	if files := m.Held(t); len(files) != 0 {
		t.Errorf("after there is nothing to keep systemd holds %d files", len(files))
	}
	if got := k.State(); got != "nothing to keep" {
		t.Error(got)
	}
}

func TestWhatWasKeptIsCleared(t *testing.T) {
	notifyManager(t)
	data := just("token")()
	do(t, NewKeeper().Keep(func() []byte { return data }))
	if !bytes.Equal(data, make([]byte, len(data))) {
		t.Errorf("%q is left", data)
	}
}

// A crash between the two halves of a change leaves both files: the newer counts.
func TestOfTwoFilesTheNewerCounts(t *testing.T) {
	m := notifyManager(t)
	k := NewKeeper()
	do(t, k.Keep(just("old")))
	do(t, k.store.put(slotName(1-k.slot), encodeKept(9, []byte(`"new"`))))
	next := NewKeeper()
	data, err := next.Take(m.Held(t))
	if err != nil || string(data) != `"new"` {
		t.Errorf("%s, %v", data, err)
	}
	do(t, next.Keep(just("newest")))
	if files := m.Held(t); len(files) != 1 {
		t.Errorf("systemd holds %d files", len(files))
	}
}

// A crash between the two halves of a change, or a change that failed, can leave
// a file under either name. Both go when there is nothing to keep.
func TestNothingToKeepLeavesNothing(t *testing.T) {
	m := notifyManager(t)
	k := NewKeeper()
	do(t, k.Keep(just("old")))
	do(t, k.store.put(slotName(1-k.slot), encodeKept(9, []byte(`"new"`))))
	next := NewKeeper()
	_, err := next.Take(m.Held(t))
	do(t, err)
	do(t, next.Keep(just("")))
	if files := m.Held(t); len(files) != 0 {
		t.Errorf("two files before: %d are left", len(files))
	}
	do(t, next.Keep(just("token")))
	next.store = &failingStore{descriptorStore: next.store, fail: 1}
	if err := next.Keep(just("newer")); err == nil {
		t.Error("a store that fails is not reported")
	}
	do(t, next.Keep(just("")))
	if files := m.Held(t); len(files) != 0 {
		t.Errorf("after a push that failed: %d are left", len(files))
	}
}

// A failingStore's first removals fail.
type failingStore struct {
	descriptorStore
	fail int
}

func (f *failingStore) remove(name string) error {
	if f.fail > 0 {
		f.fail--
		return errors.New("busy")
	}
	return f.descriptorStore.remove(name)
}

// What is held cannot be changed behind our back, and damage is not believed.
func TestAKeptFileIsSealed(t *testing.T) {
	m := notifyManager(t)
	do(t, NewKeeper().Keep(just("token")))
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
	data, err := newKeeper(nil).Take([]*os.File{damaged})
	if err == nil || data != nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%s, %v", data, err)
	}
}

func TestWithoutSystemdNothingIsKept(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	k := NewKeeper()
	do(t, k.Keep(just("token")))
	if got := k.State(); !strings.HasPrefix(got, "no: ") {
		t.Error(got)
	}
}

func TestAManagerThatIsGoneIsReported(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", t.TempDir()+"/none")
	k := NewKeeper()
	if err := k.Keep(just("token")); err == nil {
		t.Error("kept by nobody")
	}
	if got := k.State(); !strings.HasPrefix(got, "no: ") {
		t.Error(got)
	}
}

// Status asks for the state, and must not wait for a systemd that does not answer.
func TestTheStateWaitsForNoExchange(t *testing.T) {
	s := stuckStore{make(chan struct{}), make(chan struct{})}
	k := newKeeper(s)
	kept := make(chan error, 1)
	go func() { kept <- k.Keep(just("token")) }() // ends with the exchange
	<-s.asked
	state := make(chan string, 1)
	go func() { state <- k.State() }() // ends with the exchange at the latest
	select {
	case got := <-state:
		if got != "nothing to keep" {
			t.Errorf("during the exchange: %s", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits for the exchange")
	}
	close(s.answer)
	do(t, <-kept)
	if got := k.State(); got != "yes" {
		t.Errorf("after it: %s", got)
	}
}

// A stuckStore takes what it is given when it answers.
type stuckStore struct{ asked, answer chan struct{} }

func (s stuckStore) put(string, []byte) error { return nil }

func (s stuckStore) remove(string) error {
	select {
	case s.asked <- struct{}{}:
		<-s.answer
	case <-s.answer:
	}
	return nil
}
