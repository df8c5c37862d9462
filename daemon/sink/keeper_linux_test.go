package sink

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/store/storetest"
)

// A stage is a keeper with what it asks for, which a test changes.
type stage struct {
	Keeper
	t      *testing.T
	dir    string // where sinks can be
	record string

	mu     sync.Mutex
	wanted []Sink
	known  bool
	action map[string]Action // by profile
	asked  int               // calls of Content
}

func newStage(t *testing.T, wanted ...Sink) *stage {
	t.Helper()
	return &stage{t: t, dir: place(t), record: place(t) + "/sinks.json", wanted: wanted, known: true, action: map[string]Action{}}
}

// sink is a configured one in the stage's directory.
func (s *stage) sink(profile, name string) Sink {
	return Sink{Profile: profile, Path: s.dir + "/" + name, Mode: 0o600, Format: "token"}
}

func (s *stage) set(change func()) {
	s.mu.Lock()
	change()
	s.mu.Unlock()
	s.Wake()
}

func (s *stage) start() (stop func()) {
	return s.Start(Options{
		Record: s.record,
		Save:   func(path string, data []byte) error { return os.WriteFile(path, data, 0o600) },
		Wanted: func() ([]Sink, bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.wanted, s.known
		},
		Content: func(w Sink) Content {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked++
			return Content{Action: s.action[w.Profile], Data: []byte("token of " + w.Profile), Generation: 1}
		},
		Explain: func(_ string, err error) error { return err },
		On:      func(Event) {},
	})
}

func (s *stage) settle(profile string) []Unremoved {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return s.Settle(ctx, profile)
}

func (s *stage) wantLeft(profile string, want error, paths ...string) {
	s.t.Helper()
	left := s.settle(profile)
	ok := len(left) == len(paths)
	for i := 0; ok && i < len(paths); i++ {
		ok = left[i].Path == paths[i] && errors.Is(left[i].Err, want)
	}
	if !ok {
		s.t.Errorf("left: %v, want %q with %v", left, paths, want)
	}
}

// While a file waits for its removal the keeper looks at it less and less often,
// and afterwards not at all.
func TestARemovalIsTriedAgain(t *testing.T) {
	s := newStage(t)
	synctest.Test(t, func(t *testing.T) {
		s.wanted, s.action["p"] = []Sink{s.sink("p", "x")}, Write
		defer s.start()()
		s.wantLeft("", nil)
		wantContent(t, s.dir+"/x", "token of p")
		must(t, os.Rename(s.dir, s.dir+"2"))
		s.set(func() { s.action["p"] = Remove })
		s.wantLeft("", ErrNoDirectory, s.dir+"/x")
		for range 20 { // a wake is no reason to try twice as often afterwards
			s.wantLeft("", ErrNoDirectory, s.dir+"/x")
		}
		tries := func(d time.Duration) int {
			s.mu.Lock()
			before := s.asked
			s.mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.asked - before
		}
		if n := tries(10 * time.Minute); n != 10 {
			t.Errorf("%d tries in ten minutes", n)
		}
		must(t, os.Rename(s.dir+"2", s.dir))
		time.Sleep(maxPause)
		synctest.Wait()
		wantAlone(t, s.dir)
		if n := tries(time.Hour); n != 0 {
			t.Errorf("%d looks at nothing", n)
		}
	})
}

// A file that has another profile now holds the token of neither, until there is
// one of the new profile.
func TestASinkThatChangesHands(t *testing.T) {
	s := newStage(t)
	s.wanted, s.action["a"] = []Sink{s.sink("a", "x")}, Write
	defer s.start()()
	s.wantLeft("", nil)
	wantContent(t, s.dir+"/x", "token of a")
	s.set(func() { s.wanted = []Sink{s.sink("b", "x")} })
	s.wantLeft("", nil)
	wantAlone(t, s.dir)
	s.set(func() { s.action["b"] = Write })
	s.wantLeft("", nil)
	wantContent(t, s.dir+"/x", "token of b")
}

// With no configuration yet the files of the run before stay, but not without a
// login.
func TestWithoutAConfiguration(t *testing.T) {
	s := newStage(t)
	s.wanted, s.action["a"], s.action["b"] = []Sink{s.sink("a", "x"), s.sink("b", "y")}, Write, Write
	stop := s.start()
	s.wantLeft("", nil)
	stop()
	s.wanted, s.known, s.action["a"] = nil, false, Keep
	next := &stage{t: t, dir: s.dir, record: s.record, action: map[string]Action{"b": Remove}}
	defer next.start()()
	next.wantLeft("", nil)
	wantAlone(t, s.dir, "x")
}

// A kill at any step of the first write leaves nothing that the next start does
// not know of.
func TestAKillInTheFirstWrite(t *testing.T) {
	s := newStage(t)
	path := s.dir + "/x"
	must(t, os.WriteFile(s.dir+"/"+temp, []byte("half a tok"), 0o600))
	must(t, os.WriteFile(s.record, []byte(`[{"path":"`+path+`","profile":"p","temp":"`+temp+`","files":null}]`), 0o600))
	stop := s.start()
	s.wantLeft("", nil)
	stop()
	wantAlone(t, s.dir)
	wantContent(t, s.record, "[]")

	if os.Getuid() != 0 {
		t.Skip("takes root, to mount a file system that does not answer")
	}
	end := storetest.Hang(t, s.dir)
	s.wanted, s.known, s.action["p"] = []Sink{s.sink("p", "x")}, true, Write
	hung := &stage{t: t, dir: s.dir, record: s.record, wanted: s.wanted, known: true, action: s.action}
	stop = hung.start()
	want := regexp.MustCompile(`^\[{"path":"` + path + `","profile":"p","temp":"\.bloq-[A-Z2-7]{26}\.tmp","files":null}]$`)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if b, _ := os.ReadFile(s.record); want.Match(b) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the record does not name a file that is being written")
		}
	}
	end()
	stop()
}

// A disk that does not answer holds up no other file, and no person for longer
// than they wait.
func TestADiskThatDoesNotAnswer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root, to mount a file system that does not answer")
	}
	s := newStage(t)
	must(t, os.Mkdir(s.dir+"/slow", 0o700))
	s.wanted = []Sink{s.sink("p", "slow/x"), s.sink("p", "x"), s.sink("q", "y")}
	s.action["p"], s.action["q"] = Write, Write
	defer s.start()()
	s.wantLeft("", nil)
	end := storetest.Hang(t, s.dir+"/slow")
	s.set(func() { s.action["p"], s.action["q"] = Remove, Remove })
	begin := time.Now()
	s.wantLeft("q", nil)
	if d := time.Since(begin); d > Patience/2 {
		t.Errorf("another profile's file took %s", d)
	}
	if _, err := os.Lstat(s.dir + "/y"); err == nil {
		t.Error("another profile's file is there")
	}
	for deadline := begin.Add(10 * Patience); s.Status("p")[0].Err != ErrNoAnswer; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the status does not say that a write hangs")
		}
	}
	s.wantLeft("p", ErrNoAnswer, s.dir+"/slow/x")
	if st := s.Status("p"); len(st) != 2 || st[0].Err != ErrNoAnswer || st[1].Err != nil {
		t.Errorf("%v", st)
	}
	end()
	for left := s.settle("p"); len(left) > 0; left = s.settle("p") {
		if errors.Is(left[0].Err, ErrNoAnswer) {
			t.Fatal(left)
		}
	}
	wantAlone(t, s.dir, "slow")
	wantAlone(t, s.dir+"/slow")
}

// A record that cannot be read makes every file somebody else's, and is told.
func TestARecordThatCannotBeRead(t *testing.T) {
	s := newStage(t)
	must(t, os.WriteFile(s.record, []byte("{"), 0o600))
	if err := Check(s.record, s.sink("p", "x")); err == nil || !strings.Contains(err.Error(), s.record) {
		t.Errorf("Check: %v", err)
	}
	must(t, os.WriteFile(s.dir+"/x", []byte("mine"), 0o600))
	s.wanted, s.action["p"] = []Sink{s.sink("p", "x"), s.sink("p", "y")}, Write
	defer s.start()()
	s.wantLeft("", nil)
	wantContent(t, s.dir+"/x", "mine")
	wantContent(t, s.dir+"/y", "token of p")
	if st := s.Status("p"); len(st) != 2 || !errors.Is(st[0].Err, ErrForeign) || st[1].Err != nil {
		t.Errorf("%v", st)
	}
	if err := s.Unread(); err == nil || !strings.Contains(err.Error(), s.record) {
		t.Errorf("Unread: %v", err)
	}
}

// At a configured path another file may hold a token: a copy of ours, or ours
// without its record. It stays, and is told of until it is gone.
func TestAnotherFileAtAConfiguredPath(t *testing.T) {
	for name, prepare := range map[string]func(s *stage, path string){
		"a copy in its place": func(s *stage, path string) {
			stop := s.start()
			s.wantLeft("", nil)
			stop()
			must(t, os.WriteFile(path+"2", []byte("token of p"), 0o600))
			must(t, os.Rename(path+"2", path))
		},
		"no record": func(s *stage, path string) {
			stop := s.start()
			s.wantLeft("", nil)
			stop()
			must(t, os.Remove(s.record))
		},
		"a damaged record": func(s *stage, path string) {
			stop := s.start()
			s.wantLeft("", nil)
			stop()
			must(t, os.WriteFile(s.record, []byte("{"), 0o600))
		},
		"a link": func(s *stage, path string) { must(t, os.Symlink("elsewhere", path)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			path := s.dir + "/x"
			s.wanted, s.action["p"] = []Sink{s.sink("p", "x"), s.sink("q", "none/x")}, Write
			s.action["q"] = Remove // and no file, no directory
			prepare(s, path)
			s.Keeper = Keeper{}
			s.action["p"] = Remove
			defer s.start()()
			for range 2 {
				s.wantLeft("", ErrForeign, path)
				s.wantLeft("q", nil)
			}
			if st := s.Status("p"); len(st) != 1 || !errors.Is(st[0].Err, ErrForeign) {
				t.Errorf("%v", st)
			}
			wantAlone(t, s.dir, "x")
			must(t, os.Remove(path))
			s.wantLeft("", nil)

			// It is nobody's business once no sink names it.
			must(t, os.WriteFile(path, []byte("mine"), 0o600))
			s.wantLeft("", ErrForeign, path)
			s.set(func() { s.wanted = nil })
			s.wantLeft("", nil)
			wantContent(t, path, "mine")
		})
	}
}

// The files that a token is first written in clash with nobody's.
func TestAPartHasANameOfItsOwn(t *testing.T) {
	s := newStage(t)
	mine := []string{".bloq-mine.tmp", ".bloq-x.tmp.tmp", ".bloq-z.tmp"}
	for _, name := range mine {
		must(t, os.WriteFile(s.dir+"/"+name, []byte("mine"), 0o600))
	}
	s.wanted = []Sink{s.sink("p", ".bloq-x.tmp"), s.sink("p", "x"), s.sink("p", "z")}
	s.action["p"] = Write
	defer s.start()()
	all := []string{".bloq-mine.tmp", ".bloq-x.tmp", ".bloq-x.tmp.tmp", ".bloq-z.tmp", "x", "z"}
	for range 3 {
		s.wantLeft("", nil)
		wantAlone(t, s.dir, all...)
		for _, w := range s.wanted {
			wantContent(t, w.Path, "token of p")
		}
		must(t, os.Remove(s.dir+"/x"))
		s.set(func() { s.action["p"] = Write })
	}
	s.set(func() { s.action["p"] = Remove })
	s.wantLeft("", nil)
	wantAlone(t, s.dir, mine...)
	for _, name := range mine {
		wantContent(t, s.dir+"/"+name, "mine")
	}
}
