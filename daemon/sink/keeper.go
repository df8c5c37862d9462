package sink

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"slices"
	"sync"
	"time"
)

// Patience is how long a person's command waits for files to be removed: they may
// be on a file system that does not answer.
const Patience = 5 * time.Second

// maxPause is between two attempts to remove a file.
const maxPause = time.Minute

// Options is what a Keeper is started with. Its functions are called by several
// goroutines; Wanted must call nothing of the Keeper.
type Options struct {
	Record    string                               // the file that keeps, over restarts, which files are ours
	Save      func(path string, data []byte) error // writes that, as a whole
	Wanted    func() ([]Sink, bool)                // the sinks as configured; false while that is not known
	Content   func(Sink) Content                   // what its file should hold now
	Forbidden []string                             // directories that no sink may be in
	// Explain adds to an error what only the caller knows of it.
	Explain func(path string, err error) error
	On      func(Event)
}

// An Action is what should become of a file.
type Action int

// Keep is for a login whose token is being waited for: the old one does no harm.
const (
	Keep Action = iota
	Write
	Remove
)

// Content is what a file should hold. Data is the Keeper's, which clears it.
type Content struct {
	Action     Action
	Data       []byte
	Generation uint64 // of the token in it
}

// A Keeper keeps files in step with tokens. Told that something has changed, it
// compares what should be with what it has written, so that no event can be
// missed. Each file has a goroutine while there is something to do for it, so
// that a disk that does not answer holds up nothing else. A Keeper that was not
// started does nothing.
type Keeper struct {
	options  Options
	ctx      context.Context
	work     sync.WaitGroup
	saving   sync.Mutex // held while the record is written
	recorded []byte     // what it holds
	saveErr  error
	unread   error // why what a Keeper before has recorded is not known

	mu     sync.Mutex // guards the rest, and is never held over I/O
	files  map[string]*file
	wanted []Sink
}

// A file is one path. Only its goroutine changes what is in it; others read that
// under Keeper.mu.
type file struct {
	path string
	want Sink // as it is configured; zero if it is not
	have Sink // as it was when the file was written

	ours       bool   // a file of ours may be there, or a part of one
	temp       string // what a part of it is called beside it, of which no other file has the name
	ids        []ID   // what the file there may be called, if it is ours
	generation uint64
	written    time.Time // zero if not by this Keeper
	leaving    bool      // it has to go
	tries      int       // to remove it
	retry      *time.Timer
	err        error // of the last write or removal

	due  bool          // it has to be looked at
	idle chan struct{} // closed when its goroutine ends; nil if there is none
	busy time.Time     // since when that is at the disk; zero if it is not

	running, again bool // its command, and whether that must run once more
	commandErr     error
}

// Start begins to keep files in step. What it returns stops that, and kills the
// commands that run.
func (k *Keeper) Start(o Options) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	files := k.load(o)
	k.mu.Lock()
	k.options, k.ctx, k.files = o, ctx, files
	k.wake()
	k.mu.Unlock()
	return func() {
		k.mu.Lock()
		cancel()
		k.mu.Unlock()
		ended := make(chan struct{})
		go func() { // ends with the process, if a disk does not answer
			k.work.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(Patience):
		}
	}
}

// Wake has every file looked at. It never blocks.
func (k *Keeper) Wake() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wake()
}

// Touch has the files of profile looked at. It never blocks.
func (k *Keeper) Touch(profile string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.files {
		if f.want.Profile == profile || f.have.Profile == profile {
			k.poke(f)
		}
	}
}

func (k *Keeper) wake() {
	if k.files == nil {
		return
	}
	wanted, known := k.options.Wanted()
	k.wanted = wanted
	for _, f := range k.files {
		f.want = Sink{}
		if !known {
			f.want = f.have // it stays while there is a login
		}
	}
	for _, w := range wanted {
		if k.files[w.Path] == nil {
			k.files[w.Path] = &file{path: w.Path}
		}
		k.files[w.Path].want = w
	}
	for _, f := range k.files {
		k.poke(f)
	}
}

// poke has f looked at. The caller holds k.mu.
func (k *Keeper) poke(f *file) {
	f.due = true
	if f.idle == nil && k.ctx.Err() == nil {
		f.idle = make(chan struct{})
		k.work.Go(func() { k.attend(f) })
	}
}

func (k *Keeper) attend(f *file) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for f.due && k.ctx.Err() == nil {
		f.due = false
		want := f.want
		k.mu.Unlock()
		writers <- struct{}{}
		k.atDisk(f, time.Now())
		k.bring(f, want)
		k.atDisk(f, time.Time{})
		<-writers
		k.mu.Lock()
	}
	close(f.idle)
	f.idle = nil
	if f.want.Path == "" && !f.ours && !f.running {
		delete(k.files, f.path)
	}
}

// A disk that hangs holds a thread for each call, and a service has few of them
// (TasksMax=). So has a command while it runs, beside its own processes.
var (
	writers  = make(chan struct{}, 12)
	commands = make(chan struct{}, 4)
)

func (k *Keeper) atDisk(f *file, since time.Time) {
	k.mu.Lock()
	f.busy = since
	k.mu.Unlock()
}

// bring brings f to where it should be.
func (k *Keeper) bring(f *file, want Sink) {
	defer k.save()
	c := Content{Action: Remove}
	if want.Path != "" {
		c = k.options.Content(want)
	}
	defer clear(c.Data)
	if c.Action == Remove || f.ours && f.have.Profile != want.Profile {
		if !k.remove(f, want.Path != "") || c.Action == Remove {
			return
		}
	}
	k.mu.Lock()
	f.leaving = false
	fresh := f.err == nil && f.have.Equal(want) && f.generation == c.Generation
	k.mu.Unlock()
	if c.Action == Write && !(fresh && len(f.ids) == 1 && holds(f.path, f.ids[0])) {
		k.write(f, want, c)
	}
}

func (k *Keeper) write(f *file, want Sink, c Content) {
	before := f.ids
	announce := func(ids []ID) {
		k.mu.Lock()
		if f.temp == "" {
			f.temp = ".bloq-" + rand.Text() + ".tmp"
		}
		f.ours, f.ids, f.have.Path, f.have.Profile = true, ids, want.Path, want.Profile
		k.mu.Unlock()
		k.save()
	}
	if !f.ours || f.temp == "" {
		announce(before) // and temp, before that is there
	}
	id, err := write(f.path, f.temp, want.Mode, c.Data, before, func(id ID) { announce(append(slices.Clip(before), id)) }, k.options.Forbidden)
	k.settled(f, err, func() {
		f.ids = before
		if id != (ID{}) {
			f.ids = []ID{id}
		}
		f.ours = len(f.ids) > 0 || errors.Is(err, errPart)
		if err == nil {
			f.have, f.generation, f.written = want, c.Generation, time.Now()
			k.launch(f)
		}
	})
	if err == nil {
		k.options.On(Event{What: Wrote, Profile: want.Profile, Path: f.path, Generation: c.Generation})
	}
}

// remove removes f if we have written it, and reports whether it is gone. If not,
// it is looked at again, less and less often. At a path that is configured another
// file is not gone: it may be a copy of ours, or ours without its record.
func (k *Keeper) remove(f *file, configured bool) bool {
	profile := f.have.Profile
	removed, err := remove(f.path, f.temp, f.ids)
	if foreign := errors.Is(err, ErrForeign); foreign && !configured || !foreign && !f.ours {
		err = nil
	}
	k.settled(f, err, func() {
		if f.retry != nil {
			f.retry.Stop()
		}
		if f.leaving = err != nil; f.leaving {
			f.retry = time.AfterFunc(min(time.Second<<min(f.tries, 10), maxPause), func() {
				k.mu.Lock()
				defer k.mu.Unlock()
				k.poke(f)
			})
			f.tries++
			return
		}
		f.have, f.ours, f.temp, f.ids, f.written, f.tries, f.commandErr = Sink{}, false, "", nil, time.Time{}, 0, nil
	})
	if removed {
		k.options.On(Event{What: Removed, Profile: profile, Path: f.path})
	}
	return err == nil
}

// settled notes what has become of f, and tells it if that is new.
func (k *Keeper) settled(f *file, err error, note func()) {
	e := Event{What: Mended, Path: f.path, News: true}
	if err != nil {
		err = k.options.Explain(f.path, err)
		e.What, e.Err = Failed, err
	}
	k.mu.Lock()
	before := text(f.err) + text(f.commandErr)
	e.Profile, f.err = f.owner(), err
	note()
	news := before != text(f.err)+text(f.commandErr)
	k.mu.Unlock()
	if news {
		k.options.On(e)
	}
}

// owner is the profile whose token is in f, or will be.
func (f *file) owner() string {
	if f.ours {
		return f.have.Profile
	}
	return f.want.Profile
}

// launch runs the command of f, or once more after the run under way. The caller
// holds k.mu.
func (k *Keeper) launch(f *file) {
	switch {
	case len(f.have.Command) == 0 || k.ctx.Err() != nil:
	case f.running:
		f.again = true
	default:
		f.running = true
		k.work.Go(func() { k.command(f) })
	}
}

// command ends when the command does, or is killed, and need not run again.
func (k *Keeper) command(f *file) {
	for again := true; again; {
		k.mu.Lock()
		s := f.have
		k.mu.Unlock()
		e := Event{What: CommandEnded, Profile: s.Profile, Path: f.path}
		commands <- struct{}{}
		e.Output, e.Err = run(k.ctx, s.Command, s.environment(os.Getenv), commandTimeout)
		<-commands
		if k.ctx.Err() != nil {
			return
		}
		k.mu.Lock()
		e.News = text(e.Err) != text(f.commandErr)
		f.commandErr = e.Err
		again = f.again && len(f.have.Command) > 0
		f.again, f.running = false, again
		k.mu.Unlock()
		k.options.On(e)
	}
}
