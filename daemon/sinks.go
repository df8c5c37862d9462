package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"bloq-agent/daemon/config"
	"bloq-agent/daemon/dialect"
	"bloq-agent/daemon/profile"
	"bloq-agent/daemon/sink"
	"bloq-agent/ipc"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// sinksRecord is where a keeper notes which token files are ours.
func sinksRecord(stateDir string) string { return filepath.Join(stateDir, "sinks.json") }

// tokenFiles keep the files of the configured sinks in step with the tokens.
type tokenFiles struct{ *Daemon }

// start begins to keep token files in step with the tokens. What it returns
// stops that.
func (t tokenFiles) start() (stop func()) {
	return t.sinks.Start(sink.Options{
		Record: sinksRecord(t.options.StateDir),
		Save:   t.saveRecord,
		Wanted: func() ([]sink.Sink, bool) {
			return t.config.get().Sinks(), t.config.ready()
		},
		Content:   t.content,
		Forbidden: t.forbidden(),
		Explain:   t.explain,
		On:        t.tell,
	})
}

// forbidden are the directories of our own files, where no sink may be.
func (t tokenFiles) forbidden() []string {
	dirs := append(config.OwnDirs(os.Getenv), t.options.StateDir, filepath.Dir(t.options.ConfigPath))
	if socket := t.options.socket(); socket != "" {
		dirs = append(dirs, filepath.Dir(socket))
	}
	return dirs
}

// saveRecord writes into the state directory, so it looks first whether that is
// still ours (invariant 5 of package profile).
func (t tokenFiles) saveRecord(path string, data []byte) error {
	if set := t.state.set.Load(); set != nil {
		if err := set.Misplaced(); err != nil {
			return err
		}
	}
	return store.WriteFile(path, data)
}

// CheckSinks says why a daemon would refuse the sinks of c, as far as that can be
// said beforehand. None need run.
func CheckSinks(c config.Config, getenv func(string) string) error {
	var all []error
	for _, s := range c.Sinks() {
		state, err := config.StateDir(getenv)
		if err == nil {
			err = sink.Check(sinksRecord(state), s)
		}
		if err != nil {
			all = append(all, errors.New("sink of "+s.Profile+": "+advice(s.Path, err)))
		}
	}
	return errors.Join(all...)
}

// content is what the file of s should hold. It is of the moment: whoever
// changes that wakes the keeper afterwards.
func (t tokenFiles) content(s sink.Sink) sink.Content {
	set := t.state.set.Load()
	if set == nil {
		return sink.Content{Action: sink.Keep}
	}
	p, known := set.Lookup(s.Profile)
	if set.Locked() || !known || p.Record().Store == "" {
		return sink.Content{Action: sink.Remove}
	}
	token, ok := sinkToken(p)
	if !ok || s.Format == "" { // of no configured sink
		return sink.Content{Action: sink.Keep}
	}
	defer clear(token.Value)
	return sink.Content{Action: sink.Write, Data: sinkFormats[s.Format](token), Generation: token.Generation}
}

// sinkToken is the valid access token of p, if there is one.
func sinkToken(p *profile.Profile) (dialect.Token, bool) {
	snapshot := p.Status().Snapshot
	if snapshot == nil || !snapshot.Valid() {
		return dialect.Token{}, false
	}
	grant := snapshot.Grant()
	if grant == nil {
		return dialect.Token{}, false // wiped while we looked
	}
	return dialect.Token{
		Profile: p.Name(), Value: grant.AccessToken, IssuedAt: snapshot.IssuedAt(), Expiry: snapshot.Expiry(),
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

// sinkLevels are how loud the log says what the keeper tells.
var sinkLevels = map[string]zerolog.Level{
	sink.Wrote: zerolog.DebugLevel, sink.Removed: zerolog.InfoLevel, sink.Mended: zerolog.InfoLevel,
	sink.Failed: zerolog.WarnLevel, sink.Unread: zerolog.WarnLevel, sink.Unrecorded: zerolog.WarnLevel,
	sink.CommandEnded: zerolog.DebugLevel,
}

// tell tells the log and watchers what the keeper has done.
func (t tokenFiles) tell(e sink.Event) {
	level := sinkLevels[e.What]
	if e.What == sink.CommandEnded && e.News && e.Err != nil {
		level = zerolog.WarnLevel
	}
	line := t.log.WithLevel(level)
	for _, field := range [][2]string{{"profile", e.Profile}, {"path", e.Path}, {"output", e.Output}} {
		if field[1] != "" {
			line = line.Str(field[0], field[1])
		}
	}
	if e.Generation != 0 {
		line = line.Uint64("gen", e.Generation)
	}
	if e.Err != nil {
		line = line.Str("error", advice(e.Path, e.Err))
	}
	line.Msg(e.What)
	if e.News && len(t.sinks.Status(e.Profile)) > 0 {
		t.hub.publish(ipc.Event{Time: t.outside.Clock.Now().UTC(), Event: "status", Profile: e.Profile, Status: t.statusOf(e.Profile)})
	}
}

func (t tokenFiles) explain(path string, err error) error {
	// EPERM is not Landlock's: the file cannot be changed, by chattr perhaps.
	if errors.Is(err, syscall.EACCES) && t.needsRestart(filepath.Dir(path)) {
		return fmt.Errorf("%w: the daemon may write in the directories that it started with; restart it", err)
	}
	return err
}

// advice is err about the file at path, with what a person can type.
func advice(path string, err error) string {
	switch {
	case errors.Is(err, sink.ErrForeign):
		return err.Error() + "; rm " + ipc.ShellWord(path) + ", or name another path"
	case errors.Is(err, sink.ErrChanged):
		return err.Error() + "; rm " + ipc.ShellWord(path)
	}
	return err.Error()
}

// status is the status of a profile's sinks.
func (t tokenFiles) status(profile string) []ipc.SinkStatus {
	var list []ipc.SinkStatus
	for _, s := range t.sinks.Status(profile) {
		out := ipc.SinkStatus{Path: s.Path, Format: s.Format, WrittenAt: s.Written.UTC()}
		switch {
		case s.Err != nil:
			out.Error = advice(s.Path, s.Err)
		case s.CommandErr != nil:
			out.Error = "command: " + s.CommandErr.Error()
		}
		list = append(list, out)
	}
	return list
}

// dropped are the token files that should be gone, and that no configured sink
// names.
func (t tokenFiles) dropped() []ipc.SinkStatus {
	var list []ipc.SinkStatus
	for _, f := range t.sinks.Dropped() {
		list = append(list, ipc.SinkStatus{Path: f.Path, Error: advice(f.Path, f.Err)})
	}
	return list
}

// settle waits until the token files of profile, or all, are as they should
// be, and returns those that should be gone.
func (t tokenFiles) settle(profile string) []sink.Unremoved {
	ctx, cancel := context.WithTimeout(context.Background(), sink.Patience)
	defer cancel()
	return t.sinks.Settle(ctx, profile)
}

// unremoved says which token files are left, after what was done all the same.
func (t tokenFiles) unremoved(done string, all []sink.Unremoved) *ipc.Problem {
	if len(all) == 0 {
		return nil
	}
	problem := &ipc.Problem{Code: ipc.CodeUnavailable}
	var waiting, theirs, remove []string
	away := false
	for _, f := range all {
		switch {
		case errors.Is(f.Err, sink.ErrChanged):
			theirs = append(theirs, "the token file "+f.Err.Error()+" and may still hold a token")
		case errors.Is(f.Err, sink.ErrForeign):
			theirs = append(theirs, "the file "+f.Path+" is there, bloq-agent did not write it, and it may hold a token")
		}
		if errors.Is(f.Err, sink.ErrChanged) || errors.Is(f.Err, sink.ErrForeign) {
			remove = append(remove, ipc.ShellWord(f.Path))
			continue
		}
		away = away || errors.Is(f.Err, sink.ErrNoDirectory) || errors.Is(f.Err, sink.ErrOtherDirectory) || errors.Is(f.Err, sink.ErrNotMounted)
		reason := strings.TrimPrefix(f.Err.Error(), "remove "+f.Path+": ")
		waiting = append(waiting, "the token file "+f.Path+" could not be removed: "+reason)
	}
	if len(waiting) > 0 {
		it := "it is removed when the disk is back"
		if len(waiting) > 1 {
			it = "they are removed when the disk is back"
		}
		if c := t.confined.Load(); away && c != nil && c.dirs != nil { // which is another place to it
			it += " and the daemon has been restarted"
		}
		waiting = append(waiting, it)
	}
	if len(remove) > 0 {
		problem.Hint = "rm " + strings.Join(remove, " ")
	}
	if err := t.sinks.Unread(); err != nil {
		theirs = append(theirs, "the list of the token files that bloq-agent wrote could not be read ("+err.Error()+")")
	}
	problem.Detail = done + ", but " + strings.Join(append(waiting, theirs...), "; ")
	return problem
}
