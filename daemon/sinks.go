package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"bloq-agent/daemon/dialect"
	"bloq-agent/daemon/sink"
	"bloq-agent/ipc"
	"bloq-agent/store"
	"bloq-agent/store/trusted"
)

// sinksFile in the state directory says which files are ours to remove, over
// restarts.
const sinksFile = "sinks.json"

// settleTimeout bounds how long a person's command waits for files to be
// removed. They may be on a file system that does not answer.
const settleTimeout = 5 * time.Second

// sinks keeps files in step with tokens. One goroutine does all of it: told
// that something has changed, it compares what should be with what it has
// written, so that no event can be missed and a slow disk holds up nobody.
type sinks struct {
	d        *Daemon
	wakes    chan struct{}      // a look is due; buffered, for one look does for many
	asks     chan chan struct{} // a look is due, and its end is waited for
	finished chan commandEnd
	ended    chan struct{}

	status atomic.Pointer[map[string][]ipc.SinkStatus] // by profile

	// The rest is run's alone.
	files     map[string]*sinkFile // by path
	commands  int                  // that run now
	recorded  []byte               // what sinksFile holds
	recordErr error
	news      map[string]bool // profiles whose sinks fail, or work, since this look
}

// A sinkFile is one sink and what became of it.
type sinkFile struct {
	sink.Sink
	id         sink.ID // zero if we have not written it
	next       sink.ID // that of the file that is about to take its place
	generation uint64  // of the token in it
	written    time.Time
	changed    bool  // the configuration of it has, since it was written
	err        error // of the last write or removal

	running, again bool // its command, and whether that must run once more
	commandErr     error
}

type commandEnd struct {
	file   *sinkFile
	output string
	err    error
}

// A sinkRecord is a sinkFile in sinksFile. The file at Path is ours if it is one
// of Files.
type sinkRecord struct {
	Path    string    `json:"path"`
	Profile string    `json:"profile"`
	Files   []sink.ID `json:"files"`
}

// start begins to keep files in step. What it returns stops that, and kills
// the commands that run.
func (s *sinks) start(d *Daemon) (stop func()) {
	s.d, s.files, s.news = d, map[string]*sinkFile{}, map[string]bool{}
	s.wakes, s.asks = make(chan struct{}, 1), make(chan chan struct{})
	s.finished, s.ended = make(chan commandEnd), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go s.run(ctx)
	return func() {
		cancel()
		select {
		case <-s.ended:
		case <-time.After(settleTimeout): // the process ends, and this with it
		}
	}
}

// wake never blocks: the refreshers call it.
func (s *sinks) wake() {
	select {
	case s.wakes <- struct{}{}:
	default: // one is due already, or the daemon does not run yet
	}
}

// settle returns when every file is as it should be, or has failed to be.
func (s *sinks) settle() {
	if s.asks == nil {
		return // the daemon does not run yet
	}
	done, patience := make(chan struct{}), time.After(settleTimeout)
	select {
	case s.asks <- done:
	case <-s.ended:
		return
	case <-patience:
		s.d.log.Warn().Msg("sinks are not in order yet: the disk does not answer")
		return
	}
	select {
	case <-done:
	case <-patience:
		s.d.log.Warn().Msg("sinks are not in order yet: the disk does not answer")
	}
}

func (s *sinks) run(ctx context.Context) {
	defer close(s.ended)
	s.readRecord()
	s.look(ctx)
	for {
		select {
		case <-ctx.Done():
			for ; s.commands > 0; s.commands-- {
				<-s.finished
			}
			return
		case e := <-s.finished:
			s.commandEnded(ctx, e)
			s.publish()
		case <-s.wakes:
			s.look(ctx)
		case done := <-s.asks:
			s.look(ctx)
			close(done)
		}
	}
}

// look brings every file to where it should be.
func (s *sinks) look(ctx context.Context) {
	config := s.d.config.Load()
	if config.loaded.IsZero() {
		return // nobody knows what should be
	}
	wanted := map[string]sink.Sink{}
	for _, p := range config.Profiles {
		for _, w := range p.Sinks {
			wanted[w.Path] = w
		}
	}
	for path, f := range s.files {
		if w, ok := wanted[path]; !ok || w.Profile != f.Profile {
			s.remove(f)
			if f.id == (sink.ID{}) && !f.running {
				delete(s.files, path)
			}
		}
	}
	for path, w := range wanted {
		f := s.files[path]
		if f == nil {
			f = &sinkFile{}
			s.files[path] = f
		}
		if !f.Equal(w) {
			f.Sink, f.changed = w, true
		}
		s.bring(ctx, f)
	}
	s.writeRecord()
	s.publish()
}

// bring does what has to be done to one file.
func (s *sinks) bring(ctx context.Context, f *sinkFile) {
	state := s.d.profile(f.Profile).state.Load()
	if s.d.locked.Load() || state.facts.Store == "" {
		s.remove(f)
		return
	}
	t, ok := state.sinkToken()
	if !ok {
		return // there will be one, or a person will be told; the old one does no harm
	}
	defer clear(t.Value)
	if f.err == nil && !f.changed && f.generation == t.Generation && sink.Holds(f.Path, f.id) {
		return
	}
	t.Profile = f.Profile
	data := sinkFormats[f.Format](t)
	defer clear(data)
	id, err := sink.Write(f.Path, f.Mode, data, func(id sink.ID) {
		f.next = id
		s.writeRecord()
	}, s.d.ownDirs()...)
	f.next = sink.ID{}
	if id != (sink.ID{}) {
		f.id = id
	}
	if errors.Is(err, fs.ErrPermission) && s.d.needsRestart(filepath.Dir(f.Path)) {
		err = fmt.Errorf("%w: the daemon may write in the directories that it started with; restart it", err)
	}
	s.tell(f, err)
	if err == nil {
		f.generation, f.written, f.changed = t.Generation, time.Now(), false
		s.d.log.Debug().Str("profile", f.Profile).Str("path", f.Path).Uint64("gen", t.Generation).Msg("wrote a sink")
		s.launch(ctx, f)
	}
}

// remove removes a file that we have written.
func (s *sinks) remove(f *sinkFile) {
	if f.id == (sink.ID{}) {
		s.news[f.Profile] = s.news[f.Profile] || f.err != nil || f.commandErr != nil
		f.err, f.commandErr = nil, nil
		return
	}
	removed, err := sink.Remove(f.Path, f.id)
	s.tell(f, err)
	if err == nil {
		f.id, f.generation, f.written, f.commandErr = sink.ID{}, 0, time.Time{}, nil
	}
	if removed {
		s.d.log.Info().Str("profile", f.Profile).Str("path", f.Path).Msg("removed a sink")
	}
}

// tell logs what has become of f if that is new.
func (s *sinks) tell(f *sinkFile, err error) {
	before := f.err
	f.err = err
	if errText(err) == errText(before) {
		return
	}
	s.news[f.Profile] = true
	if err != nil {
		s.d.log.Warn().Str("profile", f.Profile).Str("path", f.Path).Err(err).
			Msg("sink is not as it should be; trying again at the next refresh or reload")
		return
	}
	s.d.log.Info().Str("profile", f.Profile).Str("path", f.Path).Msg("sink is in order again")
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// sinkToken is the valid access token of s, if there is one.
func (s *state) sinkToken() (dialect.Token, bool) {
	if s.problem != nil {
		return dialect.Token{}, false
	}
	snapshot := s.refresher.Snapshot()
	if !snapshot.Valid() {
		return dialect.Token{}, false
	}
	grant := snapshot.Grant()
	if grant == nil {
		return dialect.Token{}, false // wiped while we looked
	}
	return dialect.Token{
		Value: grant.AccessToken, IssuedAt: snapshot.IssuedAt(), Expiry: snapshot.Expiry(),
		RefreshAt: snapshot.NextAttempt(), Generation: snapshot.Generation,
	}, true
}

// sinkFormats render a whole file. They are the dialects of the same names, but
// for env: a file that is read has nothing to export.
var sinkFormats = map[string]func(dialect.Token) []byte{
	"token":  func(t dialect.Token) []byte { return wrap("", t.Value, "\n") },
	"header": func(t dialect.Token) []byte { return wrap("Authorization: Bearer ", t.Value, "\n") },
	"json": func(t dialect.Token) []byte {
		b, _ := json.Marshal(t.Answer()) // nothing in it cannot be encoded
		return append(b, '\n')
	},
	"env": func(t dialect.Token) []byte {
		// As sh's `.` and systemd's EnvironmentFile= read it.
		quoted := bytes.ReplaceAll(t.Value, []byte("'"), []byte(`'\''`))
		defer clear(quoted)
		return wrap("BLOQ_ACCESS_TOKEN='", quoted, "'\n")
	},
}

func wrap(before string, value []byte, after string) []byte {
	return bytes.Join([][]byte{[]byte(before), value, []byte(after)}, nil)
}

// ownDirs are where no sink may be: ours of this run too.
func (d *Daemon) ownDirs() []string {
	return append(ownDirs(os.Getenv), d.options.StateDir,
		filepath.Dir(d.options.ConfigPath), filepath.Dir(d.options.Listener.Addr().String()))
}

// launch runs the command of f, or once more after the run under way.
func (s *sinks) launch(ctx context.Context, f *sinkFile) {
	switch {
	case len(f.Command) == 0:
		return
	case f.running:
		f.again = true
		return
	}
	f.running = true
	s.commands++
	argv, env := f.Command, f.Environment(os.Getenv)
	go func() { // ends when the command does, or is killed
		output, err := sink.Run(ctx, argv, env, sink.CommandTimeout)
		s.finished <- commandEnd{f, output, err}
	}()
}

func (s *sinks) commandEnded(ctx context.Context, e commandEnd) {
	f := e.file
	f.running = false
	s.commands--
	if e.output != "" {
		s.d.log.Debug().Str("profile", f.Profile).Str("path", f.Path).Str("output", e.output).Msg("command of a sink")
	}
	if errText(e.err) != errText(f.commandErr) {
		s.news[f.Profile] = true
		if e.err != nil {
			s.d.log.Warn().Str("profile", f.Profile).Str("path", f.Path).Err(e.err).Msg("command of a sink failed")
		}
	}
	f.commandErr = e.err
	if f.again {
		f.again = false
		if f.id != (sink.ID{}) {
			s.launch(ctx, f)
		}
	}
}

// publish makes what status shows, and tells watchers if it is worse or better.
func (s *sinks) publish() {
	status := map[string][]ipc.SinkStatus{}
	for name, p := range s.d.config.Load().Profiles {
		for _, c := range p.Sinks {
			if f := s.files[c.Path]; f != nil && f.Profile == name {
				status[name] = append(status[name], f.describe())
			}
		}
	}
	s.status.Store(&status)
	for name, is := range s.news {
		if status[name] == nil || !is {
			continue
		}
		status := s.d.profileStatus(s.d.profile(name))
		s.d.hub.publish(ipc.Event{Time: time.Now().UTC(), Event: "status", Profile: name, Status: &status})
	}
	clear(s.news)
}

func (f *sinkFile) describe() ipc.SinkStatus {
	out := ipc.SinkStatus{Path: f.Path, Format: f.Format, Error: errText(f.err)}
	if !f.written.IsZero() {
		out.WrittenAt = f.written.UTC()
	}
	if f.err == nil && f.commandErr != nil {
		out.Error = "command: " + f.commandErr.Error()
	}
	return out
}

// of is the status of a profile's sinks.
func (s *sinks) of(profile string) []ipc.SinkStatus {
	if all := s.status.Load(); all != nil {
		return (*all)[profile]
	}
	return nil
}

func (s *sinks) recordPath() string { return filepath.Join(s.d.options.StateDir, sinksFile) }

// readRecord takes over what a daemon before us has written. Without a record
// those files are not ours to remove, and only to replace.
func (s *sinks) readRecord() {
	data, err := trusted.ReadFile(s.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var list []sinkRecord
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		s.d.log.Warn().Err(err).Msg("sinks of the run before are not known")
		return
	}
	s.recorded = data
	for _, r := range list {
		for _, id := range r.Files {
			if filepath.IsAbs(r.Path) && sink.Holds(r.Path, id) {
				s.files[r.Path] = &sinkFile{Sink: sink.Sink{Path: r.Path, Profile: r.Profile}, id: id}
			}
		}
	}
}

// writeRecord comes before a file takes its place too, and then names both the
// old one and the new: wherever a crash comes, the next start knows the file.
func (s *sinks) writeRecord() {
	list := []sinkRecord{}
	for _, f := range s.files {
		r := sinkRecord{Path: f.Path, Profile: f.Profile}
		for _, id := range []sink.ID{f.id, f.next} {
			if id != (sink.ID{}) {
				r.Files = append(r.Files, id)
			}
		}
		if r.Files != nil {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b sinkRecord) int { return strings.Compare(a.Path, b.Path) })
	data, err := json.Marshal(list)
	if err != nil || bytes.Equal(data, s.recorded) || len(list) == 0 && s.recorded == nil {
		return
	}
	err = store.WriteFile(s.recordPath(), data)
	if err == nil {
		s.recorded = data
	}
	if err != nil && errText(err) != errText(s.recordErr) {
		s.d.log.Warn().Err(err).Msg("sinks are not recorded; a restart will not know which files to remove")
	}
	s.recordErr = err
}
