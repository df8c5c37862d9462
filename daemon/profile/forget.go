package profile

import (
	"cmp"

	"bloq-agent/store"
)

// Forget ends the login: no token is served from the call on, over restarts too.
// The record says so before the secrets are deleted. A copy that cannot be deleted
// stays on the record, with an error; another Forget, or the daemon by itself,
// deletes it when its store is back. (PROTOCOL.md section 2.7)
func (p *Profile) Forget() error {
	var left error
	err := p.replace(func(*state) (plan, error) {
		r := p.record()
		if r.ID == "" || r.Store == "" && len(r.Leftovers) == 0 && len(r.Pending) == 0 {
			return plan{}, p.needsLogin("nothing to forget")
		}
		p.ended = true
		left = end(p, r)
		return plan{problem: p.needsLogin("needs login"), endpoints: p.set.settings.Load().Endpoints(p.record()), events: []Event{{Kind: Forgotten}}}, nil
	})
	if err != nil {
		return err
	}
	return left
}

// end deletes the login r from the disk. Its error names what could not be deleted.
func end(p *Profile, r store.Profile) error {
	markOf(p.set.records.Dir(), r).clear()
	ended := moved(r, "")
	ended.ClientID, ended.Pending, ended.Ended = "", nil, p.set.credential(p.name)
	if err := p.put(ended); err != nil {
		// The secrets can be deleted all the same. Without them the record opens
		// nothing.
		if r.Store != "" && p.deleteItem(r.Store, r.ID) == nil {
			return left(p, "the record of the login is left: "+err.Error(), err)
		}
		return left(p, "the daemon logs in again when it restarts: "+err.Error(), err)
	}
	if err := p.dropCopies(); err != nil {
		return left(p, p.dropInBackground(err), err)
	}
	return nil
}

func left(p *Profile, what string, err error) error {
	logout := "bloq-agent logout --profile " + p.name
	return &Problem{
		Kind: Unavailable, Detail: p.name + ": logged out, but " + what,
		Hint: cmp.Or(restart(p.set, err, logout), logout),
	}
}
