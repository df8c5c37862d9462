//go:build linux

package sim

import (
	"encoding/json"
	"time"
)

// What people do to the disk behind the daemon's back.

// stepReplace is cp -a S B; rm -rf S; mv B S.
func stepReplace(w *world, _ step) {
	if w.volume.replaceDir("/state") == nil {
		w.moved("replaced")
	}
}

func (w *world) moved(how string) {
	w.note("the state directory is %s", how)
	if i := w.running(); i != nil && i.moved.IsZero() && !i.blind {
		i.moved = time.Now()
		w.trouble.set("moved", true)
	}
	w.lockChanges = nil // the mark of a lock may be another
	for _, p := range w.people() {
		p.unsure()
	}
}

func stepBackup(w *world, _ step) {
	if s, err := w.volume.snapshot("/state"); err == nil {
		w.backup = s
	}
}

// stepRestore brings an older state directory back.
func stepRestore(w *world, s step) {
	if w.backup == nil || w.volume.restore(w.backup, "/state", s.has("inplace")) != nil {
		return
	}
	w.restored = true
	w.ownProfiles = nil // it is not what was there
	before, movedBefore := w.running(), time.Time{}
	if before != nil {
		movedBefore = before.moved
	}
	w.moved("an older one")
	for _, p := range w.people() {
		for _, l := range p.logins {
			l.deadBecause, l.goneBecause, l.servedUntil = "restored", "restored", time.Time{}
		}
		p.olderItem = true
	}
	if before != nil && s.has("inplace") {
		before.moved = movedBefore // nobody can see that
	}
}

func stepCopy(w *world, s step) {
	if r, ok := w.recordOf(s.profile); ok {
		if b, err := w.volume.read("/state/" + r.ID + ".age"); err == nil {
			w.itemCopies[r.ID] = b
		}
	}
}

// stepPutBack has a person put an older item in the place of the one that there is.
func stepPutBack(w *world, s step) {
	r, ok := w.recordOf(s.profile)
	if !ok || r.Store != "file" || w.itemCopies[r.ID] == nil || w.volume.write("/state/"+r.ID+".age", w.itemCopies[r.ID]) != nil {
		return
	}
	w.note("an older item of %s is back", s.profile)
	// Until the next save the store has another token than the daemon.
	p := w.person(s.profile)
	p.olderItem = true
	if p.inForce == nil { // its record may be there still
		p.anyMayBeInForce()
	}
	if n := len(w.lockChanges); w.running() == nil || n > 0 && w.lockChanges[n-1].lock {
		p.memoryIsGone()
	}
}

// stepVersion has another version of the program have written profiles.json.
func stepVersion(w *world, s step) {
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
				l.rotatesSince = time.Time{} // version 1 did not know
			}
		}
	case "3":
		if w.ownProfiles == nil {
			w.ownProfiles = data
		}
		wire["version"], wire["something"] = 3, "new"
	}
	data, _ = json.Marshal(wire)
	if w.volume.write("/state/profiles.json", data) == nil {
		w.note("profiles.json is of version %s", s.arg("is"))
	}
}
