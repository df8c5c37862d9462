package profile

import "bloq-agent/store"

// recordCredentials makes a profile of each login that systemd passes and that has
// no record yet: on a headless machine nobody types a command. A credential that
// was there at a logout has ended with it.
func (s *Set) recordCredentials() {
	for _, name := range store.CredentialProfiles(s.stores.Credentials) {
		r, known := s.records.Lookup(name)
		if now := s.credential(name); r.Store != "" || known && (now == "" || now == r.Ended) {
			continue
		}
		r.Name, r.Store, r.Ended = name, "credential", ""
		var err error
		if !known {
			r.ID = store.NewID()
			_, err = entry{words{s, name}}.proposeURLs(&r, Adoption{})
		}
		if err == nil {
			err = s.records.Put(r)
		}
		if err != nil {
			s.on(Event{Kind: NotRecorded, Profile: name, Err: err})
		}
	}
}

// credential tells the login that systemd passes for a profile from any other; "" if
// there is none.
func (s *Set) credential(profile string) string {
	return store.NewCredential(s.stores.Credentials, profile, s.stores.File).Fingerprint()
}
