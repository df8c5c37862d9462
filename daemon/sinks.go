package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	wakes    chan struct{}    // a look is due; buffered, for one look does for many
	asks     chan chan []left // a look is due, and what it leaves is waited for
	finished chan commandEnd
	ended    chan struct{}

	status atomic.Pointer[map[string][]ipc.SinkStatus] // by profile
	ours   atomic.Pointer[[]left]                      // every file that may be there

	// The rest is run's alone.
	files     map[string]*sinkFile // by path
	commands  int                  // that run now
	recorded  []byte               // what sinksFile holds
	recordErr error
	news      map[string]bool // profiles whose sinks fail, or work, since this look
	tries     int             // removals that failed, since one worked
}

// A sinkFile is one sink and what became of it.
type sinkFile struct {
	sink.Sink
	ours       bool      // a file of ours may be there, or a part of one
	ids        []sink.ID // what the file there may be called, if it is ours
	leaving    bool      // it has to go
	generation uint64    // of the token in it
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

// A left is a token file that is there still, and why if it should not be.
type left struct {
	profile, path string
	err           error
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
	s.wakes, s.asks = make(chan struct{}, 1), make(chan chan []left)
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

// settle returns when every file is as it should be, or has failed to be. It
// returns those of profile, or of all if that is "", that should be gone and are
// not.
func (s *sinks) settle(profile string) []left {
	if s.asks == nil {
		return nil // the daemon does not run yet
	}
	done, patience := make(chan []left, 1), time.After(settleTimeout)
	var all []left
	select {
	case s.asks <- done:
		select {
		case all = <-done:
		case <-patience:
			all = s.unanswered()
		}
	case <-s.ended:
	case <-patience:
		all = s.unanswered()
	}
	return slices.DeleteFunc(all, func(l left) bool { return profile != "" && l.profile != profile })
}

// dropped are the files that should be gone, and that no configured sink names.
func (s *sinks) dropped() []ipc.SinkStatus {
	var out []ipc.SinkStatus
	if p := s.ours.Load(); p != nil {
		for _, l := range *p {
			named := slices.ContainsFunc(s.of(l.profile), func(st ipc.SinkStatus) bool { return st.Path == l.path })
			if l.err != nil && !named {
				out = append(out, ipc.SinkStatus{Path: l.path, Error: advice(l.err, l.path)})
			}
		}
	}
	return out
}

// unanswered is what has to be taken for left if the disk does not answer.
func (s *sinks) unanswered() []left {
	var all []left
	if p := s.ours.Load(); p != nil {
		for _, l := range *p {
			if st := s.d.profile(l.profile).state.Load(); s.d.locked.Load() || st.facts.Store == "" {
				all = append(all, left{l.profile, l.path, errors.New("its file system does not answer")})
			}
		}
	}
	return all
}

// unremoved says which token files are left, after what was done all the same.
func (d *Daemon) unremoved(done string, all []left) *ipc.Problem {
	if len(all) == 0 {
		return nil
	}
	problem := &ipc.Problem{Code: ipc.CodeUnavailable}
	var waiting, changed []string
	away := false
	for _, l := range all {
		if errors.Is(l.err, sink.ErrChanged) {
			changed = append(changed, "the token file "+l.err.Error()+" and may still hold a token")
			problem.Hint = "rm " + ipc.ShellWord(l.path)
			continue
		}
		away = away || errors.Is(l.err, sink.ErrNoDirectory) || errors.Is(l.err, sink.ErrNotMounted)
		waiting = append(waiting, "the token file "+l.path+" could not be removed: "+reason(l))
	}
	if len(waiting) > 0 {
		it := "it is"
		if len(waiting) > 1 {
			it = "they are"
		}
		it += " removed when the disk is back"
		if c := d.confined.Load(); away && c != nil && c.dirs != nil { // to it, that is another place
			it += " and the daemon has been restarted"
		}
		waiting = append(waiting, it)
	}
	problem.Detail = done + ", but " + strings.Join(append(waiting, changed...), "; ")
	return problem
}

// reason is why l could not be removed, without its path.
func reason(l left) string {
	var e *fs.PathError
	if errors.As(l.err, &e) && e.Path == l.path {
		return e.Err.Error()
	}
	return l.err.Error()
}

func (s *sinks) run(ctx context.Context) {
	defer close(s.ended)
	s.readRecord()
	s.look(ctx)
	for {
		var again <-chan time.Time
		if len(s.left()) > 0 {
			again = time.After(min(time.Second<<min(s.tries, 10), maxRemovalPause))
		}
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
		case <-again:
			s.look(ctx)
		case done := <-s.asks:
			s.look(ctx)
			done <- s.left()
		}
	}
}

// maxRemovalPause is between two tries to remove a file.
const maxRemovalPause = time.Minute

// left are the files that should be gone and are not.
func (s *sinks) left() []left {
	var all []left
	for _, f := range s.files {
		if f.leaving {
			all = append(all, left{f.Profile, f.Path, f.err})
		}
	}
	slices.SortFunc(all, func(a, b left) int { return strings.Compare(a.path, b.path) })
	return all
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
			if !f.ours && !f.running {
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
	f.leaving = false
	t, ok := state.sinkToken()
	if !ok {
		return // there will be one, or a person will be told; the old one does no harm
	}
	defer clear(t.Value)
	if f.err == nil && !f.changed && f.generation == t.Generation && len(f.ids) == 1 && sink.Holds(f.Path, f.ids[0]) {
		return
	}
	t.Profile = f.Profile
	data := sinkFormats[f.Format](t)
	defer clear(data)
	if !f.ours {
		f.ours = true
		s.writeRecord() // before there is a part of it
	}
	before := f.ids
	id, err := sink.Write(f.Path, f.Mode, data, f.ids, func(id sink.ID) {
		f.ids = append(slices.Clip(before), id)
		s.writeRecord()
	}, s.d.ownDirs()...)
	f.ids = before
	if id != (sink.ID{}) {
		f.ids = []sink.ID{id}
	}
	f.ours = len(f.ids) > 0
	s.tell(f, err)
	if err == nil {
		f.generation, f.written, f.changed = t.Generation, time.Now(), false
		s.d.log.Debug().Str("profile", f.Profile).Str("path", f.Path).Uint64("gen", t.Generation).Msg("wrote a sink")
		s.launch(ctx, f)
	}
}

// remove removes a file that we have written.
func (s *sinks) remove(f *sinkFile) {
	if !f.ours {
		s.news[f.Profile] = s.news[f.Profile] || f.err != nil || f.commandErr != nil
		f.err, f.commandErr = nil, nil
		return
	}
	removed, err := sink.Remove(f.Path, f.ids)
	s.tell(f, err)
	f.leaving = err != nil
	if f.leaving {
		s.tries++
	} else {
		f.ours, f.ids, f.generation, f.written, f.commandErr = false, nil, 0, time.Time{}, nil
		s.tries = 0
	}
	if removed {
		s.d.log.Info().Str("profile", f.Profile).Str("path", f.Path).Msg("removed a sink")
	}
}

// tell logs what has become of f if that is new.
func (s *sinks) tell(f *sinkFile, err error) {
	if errors.Is(err, fs.ErrPermission) && s.d.needsRestart(filepath.Dir(f.Path)) {
		err = fmt.Errorf("%w: the daemon may write in the directories that it started with; restart it", err)
	}
	before := f.err
	f.err = err
	if errText(err) == errText(before) {
		return
	}
	s.news[f.Profile] = true
	if err != nil {
		s.d.log.Warn().Str("profile", f.Profile).Str("path", f.Path).Str("error", advice(err, f.Path)).
			Msg("sink is not as it should be")
		return
	}
	s.d.log.Info().Str("profile", f.Profile).Str("path", f.Path).Msg("sink is in order again")
}

// advice is err with what a person can type.
func advice(err error, path string) string {
	switch {
	case errors.Is(err, sink.ErrForeign):
		return err.Error() + "; rm " + ipc.ShellWord(path) + ", or name another path"
	case errors.Is(err, sink.ErrChanged):
		return err.Error() + "; rm " + ipc.ShellWord(path)
	}
	return errText(err)
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
		if f.ours {
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
	var ours []left
	for _, f := range s.files {
		if f.ours {
			l := left{profile: f.Profile, path: f.Path}
			if f.leaving {
				l.err = f.err
			}
			ours = append(ours, l)
		}
	}
	s.ours.Store(&ours)
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
	out := ipc.SinkStatus{Path: f.Path, Format: f.Format, Error: advice(f.err, f.Path)}
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
// those files are not ours to remove, nor to replace.
func (s *sinks) readRecord() {
	list, data, err := readSinks(s.d.options.StateDir)
	if err != nil {
		s.d.log.Warn().Err(err).Msg("sinks of the run before are not known")
		return
	}
	s.recorded = data
	for _, r := range list {
		s.files[r.Path] = &sinkFile{Sink: sink.Sink{Path: r.Path, Profile: r.Profile}, ours: true, ids: r.Files}
	}
}

// readSinks is the record of the files that a daemon has written.
func readSinks(stateDir string) (list []sinkRecord, data []byte, err error) {
	data, err = trusted.ReadFile(filepath.Join(stateDir, sinksFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	return slices.DeleteFunc(list, func(r sinkRecord) bool { return !filepath.IsAbs(r.Path) }), data, err
}

// CheckSinks says why a daemon that keeps its state in stateDir would refuse the
// sinks of c, as far as that can be said beforehand.
func CheckSinks(c Config, stateDir string) error {
	list, _, err := readSinks(stateDir)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(stateDir, sinksFile), err)
	}
	ours := map[string][]sink.ID{}
	for _, r := range list {
		ours[r.Path] = r.Files
	}
	var all []error
	for _, name := range slices.Sorted(maps.Keys(c.Profiles)) {
		for _, s := range c.Profiles[name].Sinks {
			if err := sink.Check(s.Path, ours[s.Path]); err != nil {
				all = append(all, errors.New("sink of "+name+": "+advice(err, s.Path)))
			}
		}
	}
	return errors.Join(all...)
}

// writeRecord comes before a file takes its place too, and then names both the
// old one and the new: wherever a crash comes, the next start knows the file.
func (s *sinks) writeRecord() {
	list := []sinkRecord{}
	for _, f := range s.files {
		if f.ours {
			list = append(list, sinkRecord{Path: f.Path, Profile: f.Profile, Files: f.ids})
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
		s.d.log.Warn().Err(err).Msg("sinks are not recorded; a restart will not know which files are ours")
	}
	s.recordErr = err
}
