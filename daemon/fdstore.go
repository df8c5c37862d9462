package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"bloq-agent/ipc/server"
	"bloq-agent/refresher"
)

// Access tokens survive a restart of the daemon in a sealed memory file, which
// systemd holds for us in its file-descriptor store (sd_pid_notify_with_fds(3),
// FileDescriptorStoreMax=). They touch no disk, and a daemon that was killed,
// updated or hung serves again at once, with no network and a locked keyring.
//
// Access tokens only: any program of the same user can read the file through
// its service manager, as it could ask the socket. Refresh tokens and client
// keys are never in it.

const (
	keptVersion = 1
	keptMax     = 1 << 20 // bytes
)

// kept is what the file holds.
type kept struct {
	Version int `json:"version"`
	// Serial grows with each file: the highest counts at the start.
	Serial   uint64      `json:"serial"`
	Profiles []keptToken `json:"profiles"`
}

type keptToken struct {
	ID         string    `json:"id"` // the profile's
	Generation uint64    `json:"generation"`
	Token      []byte    `json:"token"`
	IssuedAt   time.Time `json:"issued_at"`
	Expiry     time.Time `json:"expiry"`
	// ExpiryBoot is the same by CLOCK_BOOTTIME. A memory file does not outlive
	// the machine's boot.
	ExpiryBoot time.Duration `json:"expiry_boot"`
}

// grant is what is left of k, or nil.
func (k keptToken) grant(c refresher.Clock) *refresher.Grant {
	now := c.Now().Round(0)
	left := min(k.Expiry.Sub(now), k.ExpiryBoot-c.Boottime())
	if left <= 0 || len(k.Token) == 0 {
		return nil
	}
	expiry := now.Add(left)
	return &refresher.Grant{
		AccessToken: append([]byte(nil), k.Token...),
		IssuedAt:    expiry.Add(-k.Expiry.Sub(k.IssuedAt)), Expiry: expiry, // its lifetime does not change with the clock
	}
}

// parseKept reads what encode wrote and nothing else.
func parseKept(data []byte) (kept, error) {
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return kept{}, errors.New("kept tokens are not readable") // the library's text may quote one
	}
	if k.Version != keptVersion {
		return kept{}, fmt.Errorf("kept tokens are of version %d", k.Version)
	}
	return k, nil
}

// A tokenKeeper owns what systemd holds for us.
type tokenKeeper struct {
	store fdStore       // nil where there is none
	dirty chan struct{} // buffered: something changed

	mu     sync.Mutex // covers a whole exchange with systemd
	serial uint64
	slot   int  // of the file that is held, if any
	held   bool // there is one
	err    error
}

// fdStore is systemd's, as far as the keeper needs it.
type fdStore interface {
	// put pushes data as a sealed file called name, and returns when systemd has
	// dealt with it.
	put(name string, data []byte) error
	remove(name string) error
}

func newTokenKeeper(store fdStore) *tokenKeeper {
	return &tokenKeeper{store: store, dirty: make(chan struct{}, 1)}
}

// changed has run keep again, soon. It never blocks.
func (k *tokenKeeper) changed() {
	select {
	case k.dirty <- struct{}{}:
	default: // it is on the list already
	}
}

// keep replaces what systemd holds by profiles; by nothing if there are none.
func (k *tokenKeeper) keep(profiles []keptToken) error {
	if k.store == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = k.replace(profiles)
	return k.err
}

// replace pushes the new file first and removes the old one then. The store
// drops what it has no room for in silence, so it must have room for two.
func (k *tokenKeeper) replace(profiles []keptToken) error {
	old := k.slot
	if len(profiles) > 0 {
		k.serial++
		data, err := json.Marshal(kept{Version: keptVersion, Serial: k.serial, Profiles: profiles})
		if err != nil {
			return err
		}
		defer clear(data)
		k.slot = 1 - old
		// What is there under the name would stay beside the new one.
		if err := k.store.remove(name(k.slot)); err != nil {
			return err
		}
		if err := k.store.put(name(k.slot), data); err != nil {
			return err
		}
	}
	if err := k.store.remove(name(old)); err != nil {
		return err
	}
	k.held = len(profiles) > 0
	return nil
}

// name: the descriptors' names alternate, so that the new file is there before
// the old one goes.
func name(slot int) string { return fmt.Sprint(server.KeptPrefix, slot) }

// state is for the status: whether tokens are kept, and if not, why.
func (k *tokenKeeper) state() string {
	if k.store == nil {
		return "no: the daemon was not started by systemd"
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.err != nil:
		return "no: " + k.err.Error()
	case k.held:
		return "yes"
	}
	return "nothing to keep"
}

// takeKept reads what the daemon before had kept, from the descriptors that
// systemd passes at the start, and closes them. Of several files the one with
// the highest serial counts: a crash may have left two.
func (k *tokenKeeper) takeKept(files []*os.File) ([]keptToken, error) {
	var best kept
	var errs []error
	for _, f := range files {
		content, err := readKept(f)
		_ = f.Close()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if content.Serial > best.Serial {
			wipeKept(best.Profiles)
			best = content
			k.held, k.slot = true, 0
			if f.Name() == name(1) {
				k.slot = 1
			}
			continue
		}
		wipeKept(content.Profiles)
	}
	k.serial = best.Serial
	return best.Profiles, errors.Join(errs...)
}

// readKept uses pread: the offset is shared with whoever else holds the file.
func readKept(f *os.File) (kept, error) {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, keptMax))
	defer clear(data)
	if err != nil {
		return kept{}, err
	}
	return parseKept(data)
}

func wipeKept(list []keptToken) {
	for _, t := range list {
		clear(t.Token)
	}
}

// inheritTokens gives the profiles what the daemon before has kept for them.
func (d *Daemon) inheritTokens(files []*os.File) {
	list, err := d.tokens.takeKept(files)
	if err != nil {
		d.log.Warn().Err(err).Msg("some tokens of the daemon before are lost")
	}
	defer wipeKept(list)
	if d.locked.Load() {
		return
	}
	for _, f := range d.records.List() {
		for _, t := range list {
			if t.ID == f.ID && t.grant(d.clock) != nil {
				p := d.profile(f.Name)
				t.Token = append([]byte(nil), t.Token...)
				p.kept.Store(&t)
				p.generation.Store(t.Generation)
			}
		}
	}
}

// keptToken is what the daemon before left for a profile whose store cannot be
// had now: a keyring that is locked until its owner comes.
func (d *Daemon) keptToken(p *profile, s *state) (refresher.Token, bool) {
	k := p.kept.Load()
	if k == nil || s.failed.IsZero() || d.locked.Load() {
		return refresher.Token{}, false
	}
	g := k.grant(d.clock)
	if g == nil {
		return refresher.Token{}, false
	}
	return refresher.Token{Value: g.AccessToken, Generation: k.Generation, IssuedAt: g.IssuedAt, Expiry: g.Expiry, Stale: true}, true
}

// takeKeptToken hands that token to the refresher that is about to start.
func (d *Daemon) takeKeptToken(p *profile) inherited {
	k := p.kept.Swap(nil)
	if k == nil {
		return inherited{}
	}
	return inherited{grant: k.grant(d.clock), same: true, kept: true}
}

// keepTokens has systemd hold the tokens of this moment.
func (d *Daemon) keepTokens() error {
	var list []keptToken
	if !d.locked.Load() {
		for _, p := range d.all() {
			if t, ok := d.tokenToKeep(p); ok {
				list = append(list, t)
			}
		}
	}
	defer wipeKept(list)
	return d.tokens.keep(list)
}

func (d *Daemon) tokenToKeep(p *profile) (keptToken, bool) {
	s := p.state.Load()
	if s.refresher == nil {
		if k := p.kept.Load(); k != nil && !s.failed.IsZero() {
			t := *k
			t.Token = append([]byte(nil), k.Token...)
			return t, true
		}
		return keptToken{}, false
	}
	snapshot := s.refresher.Snapshot()
	g := snapshot.Grant()
	if g == nil || !snapshot.Valid() {
		return keptToken{}, false
	}
	return keptToken{
		ID: s.facts.ID, Generation: snapshot.Generation, Token: g.AccessToken, IssuedAt: g.IssuedAt, Expiry: g.Expiry,
		ExpiryBoot: d.clock.Boottime() + snapshot.Left(),
	}, true
}

// runKeeper follows the refreshers, beside them: they do not wait for systemd.
func (d *Daemon) runKeeper() {
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.tokens.dirty:
			d.tellKept(d.keepTokens())
		}
	}
}

// tellKept says what changes about the keeping.
func (d *Daemon) tellKept(err error) {
	if was := d.keeping.Swap(err == nil); err != nil && was {
		d.log.Warn().Err(err).Msg("access tokens will not survive a restart")
	}
}

// dropKept forgets what the daemon before has left.
func (p *profile) dropKept() {
	if k := p.kept.Swap(nil); k != nil {
		clear(k.Token)
	}
}
