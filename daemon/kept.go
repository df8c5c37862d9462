package daemon

import (
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
)

// Access tokens survive a restart: systemd holds them for the next daemon
// (systemd.Keeper). A daemon that was killed, upgraded or hung then serves at
// once, with no network and a locked keyring.
//
// They are access tokens only. Any program of the same user can read them
// through its service manager, as it could ask the socket. Refresh tokens and
// client keys are never among them.

// A keptToken is the access token of one profile.
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

// decodeKept reads what encodeKept wrote.
func decodeKept(data []byte) ([]keptToken, error) {
	if len(data) == 0 {
		return nil, nil
	}
	var list []keptToken
	if err := json.Unmarshal(data, &list); err != nil {
		wipeKept(list)
		return nil, errors.New("kept tokens are not readable") // the library's text may quote one
	}
	return list, nil
}

// encodeKept clears list. The result is nil for an empty one.
func encodeKept(list []keptToken) []byte {
	defer wipeKept(list)
	if len(list) == 0 {
		return nil
	}
	data, err := json.Marshal(list)
	if err != nil {
		panic(err) // a keptToken has no field that cannot be encoded
	}
	return data
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
	data, err := d.tokens.Take(files)
	list, decodeErr := decodeKept(data)
	clear(data)
	if err = errors.Join(err, decodeErr); err != nil {
		d.log.Warn().Err(err).Msg("some tokens of the daemon before are lost")
	}
	defer wipeKept(list)
	if len(files) > 0 {
		d.tokens.Changed()
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
func (d *Daemon) keepTokens() error {
	return d.tokens.Keep(func() []byte { return encodeKept(d.tokensToKeep()) })
}

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
		case <-d.tokens.Changes():
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
