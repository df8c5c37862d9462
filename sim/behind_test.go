package sim

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"bloq-agent/ipc"
	"bloq-agent/store"

	"filippo.io/age"
)

// What people do to the disk behind the daemon's back.

// replace is cp -a S B; rm -rf S; mv B S.
func replace(w *world, _ step) {
	if w.volume.replaceDir("/state") == nil {
		w.moved("replaced")
	}
}

func (w *world) moved(how string) {
	w.note("the state directory is %s", how)
	if i := w.running(); i != nil && i.moved.IsZero() {
		i.moved = time.Now()
		w.trouble.set(w, "moved", true)
	}
	w.doors = nil // the mark of a lock may be another
	for _, p := range w.people() {
		p.unsure()
		p.mixed = p.ops > 0
	}
}

func takeBackup(w *world, _ step) {
	if s, err := w.volume.snapshot("/state"); err == nil {
		w.backup = s
	}
}

// restore brings an older state directory back.
func restore(w *world, s step) {
	if w.backup == nil || w.volume.restore(w.backup, "/state", s.has("inplace")) != nil {
		return
	}
	w.kept = nil // it is not what was there
	before, movedBefore := w.running(), time.Time{}
	if before != nil {
		movedBefore = before.moved
	}
	w.moved("an older one")
	for _, p := range w.people() {
		for _, l := range p.logins {
			l.spent, l.gone, l.until = "restored", "restored", time.Time{}
		}
	}
	if before != nil && s.has("inplace") {
		before.moved = movedBefore // nobody can see that
	}
}

func copyItem(w *world, s step) {
	if r, ok := w.recordOf(s.profile); ok {
		if b, err := w.volume.read("/state/" + r.ID + ".age"); err == nil {
			w.olds[r.ID] = b
		}
	}
}

// putBack has a person put an older item in the place of the one that there is.
func putBack(w *world, s step) {
	r, ok := w.recordOf(s.profile)
	if !ok || r.Store != "file" || w.olds[r.ID] == nil || w.volume.write("/state/"+r.ID+".age", w.olds[r.ID]) != nil {
		return
	}
	w.note("an older item of %s is back", s.profile)
	// Until the next save the store has another token than the daemon.
	p := w.person(s.profile)
	p.putBack = true
	if n := len(w.doors); w.running() == nil || n > 0 && w.doors[n-1].lock {
		p.memoryIsGone()
	}
}

func (w *world) recordOf(profile string) (record, bool) {
	all, _ := w.records()
	r, ok := all[profile]
	return r, ok
}

// version has another version of the program have written profiles.json.
func version(w *world, s step) {
	if w.running() != nil {
		return
	}
	data, err := w.volume.read("/state/profiles.json")
	if err != nil {
		return
	}
	var wire map[string]any
	if json.Unmarshal(data, &wire) != nil {
		return
	}
	switch s.arg("is") {
	case "1":
		wire["version"], w.version1 = 1, true
		for _, p := range wire["profiles"].([]any) {
			p := p.(map[string]any)
			delete(p, "rotates")
			delete(p, "leftovers")
		}
		for _, p := range w.people() {
			for _, l := range p.logins {
				l.rotates = time.Time{} // version 1 did not know
			}
		}
	case "3":
		w.kept = data
		wire["version"], wire["something"] = 3, "new"
	}
	data, _ = json.Marshal(wire)
	if w.volume.write("/state/profiles.json", data) == nil {
		w.note("profiles.json is of version %s", s.arg("is"))
	}
}

// A cheap cipher costs nothing, and opens only what was sealed to its key.
type cheap struct{}

func (cheap) Encrypt(plain []byte, to age.Recipient) ([]byte, error) {
	return append([]byte(fmt.Sprintf("%s\n", to)), plain...), nil
}

func (cheap) Decrypt(sealed []byte, identity age.Identity) ([]byte, error) {
	to, plain, ok := bytes.Cut(sealed, []byte("\n"))
	switch {
	case !ok:
		return nil, store.ErrDamaged
	case string(to) != identity.(*age.X25519Identity).Recipient().String():
		return nil, store.ErrOtherKey
	}
	return bytes.Clone(plain), nil
}

// identities are the keys that have been read: each costs a scalar multiplication.
var (
	identities   = map[string]*age.X25519Identity{}
	identitiesMu sync.Mutex
)

func (cheap) Identity(text string) (*age.X25519Identity, error) {
	identitiesMu.Lock()
	defer identitiesMu.Unlock()
	if i := identities[text]; i != nil {
		return i, nil
	}
	i, err := age.ParseX25519Identity(text)
	if err == nil {
		clear(identities) // of the histories before
		identities[text] = i
	}
	return i, err
}

// opened is the item in a file, or nil.
func (w *world) opened(path string) []byte {
	sealed, err := w.volume.read(path)
	if err != nil {
		return nil
	}
	key, err := w.volume.read("/keys/identity.txt")
	if err != nil {
		return nil
	}
	identity, err := cheap{}.Identity(strings.TrimSpace(string(key)))
	if err != nil {
		return nil
	}
	if !w.full {
		plain, _ := cheap{}.Decrypt(sealed, identity)
		return plain
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), identity)
	if err != nil {
		return nil
	}
	plain, _ := io.ReadAll(r)
	return plain
}

// tokenIn is the refresh token in an item's encoding.
func (w *world) tokenIn(item []byte) string {
	body, ok := bytes.CutPrefix(item, []byte("bloq1:"))
	plain, err := base64.RawStdEncoding.DecodeString(string(body))
	if !ok || err != nil {
		return ""
	}
	var i struct {
		RefreshToken []byte `json:"refresh_token"`
	}
	_ = json.Unmarshal(plain, &i) // an empty one otherwise
	return string(i.RefreshToken)
}

// calm ends every fault, has a daemon run, and sees that each login comes back.
func calm(w *world, _ step) {
	w.mend()
	if i := w.running(); i != nil && !i.moved.IsZero() {
		kill(w, step{})
	}
	begin(w, step{})
	unlock(w, step{})
	w.trouble.unlocked(w)
	w.sleep(tail + time.Minute) // hung exchanges, frozen calls, and saves that are tried again
	for _, p := range w.people() {
		w.mustServe(p)
	}
	w.nothingUnrecorded()
}

func (w *world) mend() {
	w.diskIs = "ok"
	w.volume.setFull(false)
	w.volume.setReadOnly(false)
	w.volume.setFailing(0)
	w.volume.release()
	w.keyring.set(keyringWorking)
	w.nextFate = saveDone
	for what := range w.trouble.now {
		if what != "moved" {
			w.trouble.set(w, what, false)
		}
	}
	network(w, step{args: map[string]string{"is": "up"}})
	w.api.mu.Lock()
	w.api.faults = nil
	w.api.mu.Unlock()
	w.clocks.set(0)
	if w.kept != nil {
		if i := w.current; i != nil && !i.dead() {
			kill(w, step{})
		}
		if w.volume.write("/state/profiles.json", w.kept) != nil {
			panic("the disk was mended")
		}
		w.kept = nil
	}
}

// mustServe: the login of p comes back, or it is plain why not.
func (w *world) mustServe(p *person) {
	a := w.askOnce(p)
	if a.ok() {
		w.settled(p, a)
		return
	}
	if a.problem.Code == ipc.CodeNeedsLogin || a.problem.Code == ipc.CodeConfiguration || a.problem.Code == ipc.CodeUnavailable {
		// It may be a verdict on bare refusals, or on what the endpoint did not accept:
		// asked every half hour.
		w.sleep(31 * time.Minute)
		if a = w.askOnce(p); a.ok() {
			w.settled(p, a)
			return
		}
	}
	l := p.now
	switch {
	case l == nil:
	case l.newest().expired(w, w.clocks.true()):
		l.spent = "expired"
	case l.newest().revoked:
		l.spent = "revoked"
	case l.newest().reached == nil && len(l.tokens) > 1:
		l.spent = "a reply was lost"
	}
	switch {
	case !p.sure, p.ops > 0, l == nil, l.gone != "":
	case l.spent != "" && !l.keep:
	default:
		w.violated("a login comes back", "%s, after the end of all faults: %s %s", l.title(), a.word(), a.problem.Detail)
	}
}

func (w *world) askOnce(p *person) answer {
	a := w.ask(request{method: "GET", path: ipc.RouteToken + "?profile=" + p.name + "&min_ttl=0", wait: 25 * time.Second})
	w.tookToken(p.name, a, tokenOf(a))
	w.note("calm: %s: %s %s", p.name, a.word(), a.problem.Detail)
	return a
}

// settled: what is served is what is in force from now on.
func (w *world) settled(p *person, a answer) {
	w.api.mu.Lock()
	l := w.api.access[tokenOf(a)].login
	w.api.mu.Unlock()
	if l == nil {
		return
	}
	switch {
	case p.sure && p.now == nil:
		w.violated("a logout ends the login", "%s is served", l.title())
	case p.sure && p.now != l:
		w.violated("the last login is the one in force", "%s is served, and not %s", l.title(), p.now.title())
	}
	for _, other := range p.logins {
		if other != l && other.until.IsZero() {
			other.until = a.start
		}
	}
	p.now, p.sure, l.gone = l, true, ""
	if r, ok := w.recordOf(p.name); ok && r.Store != "" {
		l.store = r.Store
	}
}

// nothingUnrecorded: no login lies where no record says so.
func (w *world) nothingUnrecorded() {
	records, ok := w.records()
	if !ok || w.backup != nil || w.version1 {
		return
	}
	named := map[string]bool{}
	for _, r := range records {
		named[r.ID+" "+r.Store] = true
		for _, left := range r.Leftovers {
			named[r.ID+" "+left] = true
		}
	}
	for _, id := range w.keyring.ids() {
		if !named[id+" keyring"] && !strings.HasPrefix(id, "probe-") {
			w.violated("nothing is stored that no record names", "an item in the keyring")
		}
	}
	for _, file := range w.volume.list("/state") {
		id, is := strings.CutSuffix(file, ".age")
		if is && !named[id+" file"] && !strings.HasPrefix(id, "probe-") {
			w.violated("nothing is stored that no record names", "the file %s", file)
		}
	}
}

var _ http.ResponseWriter = writer{}
