package profile

import (
	"encoding/json"
	"errors"
	"math"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// A Kept is an access token that the daemon before this one left, and what this
// one leaves for the next. It is never a refresh token: any program of the same
// user can read it through the service manager, as it could ask the socket.
type Kept struct {
	ID         string // the profile's
	Generation uint64
	Token      store.Secret
	IssuedAt   time.Time
	Expiry     time.Time
	// ExpiryBoot is the expiry by CLOCK_BOOTTIME. What is kept does not outlive a
	// boot of the machine.
	ExpiryBoot time.Duration
}

// A keptWire is a Kept as systemd holds it.
type keptWire struct {
	ID         string        `json:"id"`
	Generation uint64        `json:"generation"`
	Token      []byte        `json:"token"`
	IssuedAt   time.Time     `json:"issued_at"`
	Expiry     time.Time     `json:"expiry"`
	ExpiryBoot time.Duration `json:"expiry_boot"`
}

// grant returns the token for the rest of its life, or nil if that is over.
func (k Kept) grant(c refresher.Clock) *refresher.Grant {
	now, boot := c.Now().Round(0), c.Boottime()
	left := min(k.Expiry.Sub(now), k.ExpiryBoot-min(boot, k.ExpiryBoot), accounts.MaxLifetime)
	if left <= 0 || k.Token.IsZero() || !accounts.Sendable(k.Token.Reveal()) {
		return nil
	}
	expiry := now.Add(left)
	lifetime := max(left, min(k.Expiry.Sub(k.IssuedAt), accounts.MaxLifetime))
	return &refresher.Grant{
		AccessToken: k.Token.Clone().Reveal(),
		IssuedAt:    expiry.Add(-lifetime), Expiry: expiry, // its lifetime does not change with the clock
	}
}

// DecodeKept reads what Set.Keep returned. Its error quotes nothing.
func DecodeKept(data []byte) ([]Kept, error) {
	if len(data) == 0 {
		return nil, nil
	}
	var list []keptWire
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, errors.New("kept tokens are not readable")
	}
	out := make([]Kept, len(list))
	for i, k := range list {
		out[i] = Kept{k.ID, min(k.Generation, math.MaxInt64), store.NewSecret(k.Token), k.IssuedAt, k.Expiry, k.ExpiryBoot}
	}
	return out, nil
}

// encodeKept wipes list. It returns nil for an empty one.
func encodeKept(list []Kept) []byte {
	var out []keptWire
	for _, k := range list {
		defer k.Token.Wipe()
		out = append(out, keptWire{k.ID, k.Generation, k.Token.Reveal(), k.IssuedAt, k.Expiry, k.ExpiryBoot})
	}
	if out == nil {
		return nil
	}
	data, err := json.Marshal(out)
	if err != nil {
		panic(err) // every field of a keptWire can be encoded
	}
	return data
}

// Keep returns the access tokens of this moment for the next daemon, or nil.
func (s *Set) Keep() []byte {
	if s.locked.Load() {
		return nil
	}
	var list []Kept
	for _, p := range s.members.Load().all {
		if k, ok := keep(p); ok {
			list = append(list, k)
		}
	}
	return encodeKept(list)
}

func keep(p *Profile) (Kept, bool) {
	st := p.state.Load()
	switch {
	case st.phase != Serving && st.kept == nil:
		return Kept{}, false
	case st.phase != Serving:
		k := *st.kept
		k.Token = k.Token.Clone() // encodeKept wipes it
		return k, true
	}
	snapshot := st.refresher.Snapshot()
	g := snapshot.Grant()
	if g == nil || !snapshot.Valid() {
		return Kept{}, false
	}
	return Kept{
		ID: p.record().ID, Generation: snapshot.Generation, Token: store.NewSecret(g.AccessToken), IssuedAt: g.IssuedAt, Expiry: g.Expiry,
		ExpiryBoot: p.set.clock.Boottime() + snapshot.Left(),
	}, true
}

// token is the answer of a profile whose store cannot be used now, a keyring that
// waits for its owner for example.
func (k *Kept) token(c refresher.Clock) (refresher.Token, bool) {
	if k == nil {
		return refresher.Token{}, false
	}
	g := k.grant(c)
	if g == nil {
		return refresher.Token{}, false
	}
	return refresher.Token{Value: g.AccessToken, Generation: k.Generation, IssuedAt: g.IssuedAt, Expiry: g.Expiry, Stale: true}, true
}
