package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"bloq-agent/accounts"
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
	if left <= 0 || len(k.Token) == 0 || !accounts.Sendable(k.Token) {
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

// keep replaces what systemd holds by what gather finds; by nothing if that is
// empty. Gathering and pushing are one step: what was gathered before a lock must
// not be pushed after it.
func (k *tokenKeeper) keep(gather func() []keptToken) error {
	if k.store == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	profiles := gather()
	defer wipeKept(profiles)
	if k.err = k.replace(profiles); k.err == nil {
		k.held = len(profiles) > 0
	}
	return k.err
}

// replace pushes the new file first and removes the old one then. The store
// drops what it has no room for in silence, so it must have room for two. Where
// nothing is to be kept both names go: a crash, or a push that failed half-way,
// may have left a file under either.
func (k *tokenKeeper) replace(profiles []keptToken) error {
	if len(profiles) == 0 {
		return errors.Join(k.store.remove(name(0)), k.store.remove(name(1)))
	}
	k.serial++
	data, err := json.Marshal(kept{Version: keptVersion, Serial: k.serial, Profiles: profiles})
	if err != nil {
		return err
	}
	defer clear(data)
	next := 1 - k.slot
	// What is there under the name would stay beside the new one.
	if err := k.store.remove(name(next)); err != nil {
		return err
	}
	if err := k.store.put(name(next), data); err != nil {
		return err
	}
	k.slot = next
	return k.store.remove(name(1 - next))
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

// inheritTokens gives the profiles what the daemon before has kept for them, and
// has what is left over dropped: by a lock, for instance, that was killed before
// it came to that.
func (d *Daemon) inheritTokens(files []*os.File) {
	list, err := d.tokens.takeKept(files)
	if err != nil {
		d.log.Warn().Err(err).Msg("some tokens of the daemon before are lost")
	}
	defer wipeKept(list)
	if len(files) > 0 {
		d.tokens.changed()
	}
	if d.locked.Load() {
		return
	}
	for _, f := range d.records.List() {
		for _, t := range list {
			if t.ID == f.ID && t.grant(d.clock) != nil {
				p := d.profile(f.Name)
				p.kept.set(t)
				p.generation.Store(t.Generation)
			}
		}
	}
}

// A keptBox holds what the daemon before has left for a profile, until a
// refresher has it.
type keptBox struct {
	mu sync.Mutex
	t  *keptToken
}

func (b *keptBox) set(t keptToken) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.Token = append([]byte(nil), t.Token...)
	b.t = &t
}

// copy is the caller's own.
func (b *keptBox) copy() (keptToken, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.t == nil {
		return keptToken{}, false
	}
	t := *b.t
	t.Token = append([]byte(nil), t.Token...)
	return t, true
}

func (b *keptBox) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.t != nil {
		clear(b.t.Token)
		b.t = nil
	}
}

// keptToken is what the daemon before left for a profile whose store cannot be
// had now: a keyring that is locked until its owner comes.
func (d *Daemon) keptToken(p *profile, s *state) (refresher.Token, bool) {
	if s.failed.IsZero() || d.locked.Load() {
		return refresher.Token{}, false
	}
	k, ok := p.kept.copy()
	if !ok {
		return refresher.Token{}, false
	}
	defer clear(k.Token)
	g := k.grant(d.clock)
	if g == nil {
		return refresher.Token{}, false
	}
	return refresher.Token{Value: g.AccessToken, Generation: k.Generation, IssuedAt: g.IssuedAt, Expiry: g.Expiry, Stale: true}, true
}

// takeKeptToken hands that token to the refresher that is about to start.
func (d *Daemon) takeKeptToken(p *profile) inherited {
	k, ok := p.kept.copy()
	if !ok {
		return inherited{}
	}
	defer clear(k.Token)
	p.kept.drop()
	return inherited{grant: k.grant(d.clock), same: true, kept: true}
}

// keepTokens has systemd hold the tokens of this moment.
func (d *Daemon) keepTokens() error { return d.tokens.keep(d.tokensToKeep) }

func (d *Daemon) tokensToKeep() []keptToken {
	var list []keptToken
	if d.locked.Load() {
		return nil
	}
	for _, p := range d.all() {
		if t, ok := d.tokenToKeep(p); ok {
			list = append(list, t)
		}
	}
	return list
}

func (d *Daemon) tokenToKeep(p *profile) (keptToken, bool) {
	s := p.state.Load()
	if s.refresher == nil {
		if s.failed.IsZero() {
			return keptToken{}, false
		}
		return p.kept.copy()
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
