package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
)

// Stats counts what has come and gone since the start.
type Stats struct {
	Routes map[string]int `json:"routes"` // requests, by route
	// Grants are requests for a grant, by its type, those refused or faulted
	// included: each is an exchange as its client sees it.
	Grants map[string]int `json:"grants"`
	Issued struct {
		Account int `json:"account"`
		Access  int `json:"access"`
		Refresh int `json:"refresh"`
	} `json:"issued"`
	Reuse int `json:"reuse"` // refresh tokens that came a second time
}

// A Fault makes requests fail. Those that it has run out for, or that match
// none, are served.
type Fault struct {
	Route  string            `json:"route"` // like "POST /auth/token"
	Grant  string            `json:"grant"` // only this grant type; "" any
	Times  int               `json:"times"` // 0: until cleared
	Kind   string            `json:"kind"`  // see faultKinds
	Status int               `json:"status"`
	Header map[string]string `json:"header"`
	Body   string            `json:"body"`
	// BodyBase64 is for bodies that JSON cannot carry; it goes before Body.
	BodyBase64 []byte `json:"body_base64"`
	// Claims replace those of an access token that is minted (kind "claims");
	// a claim of null is left out.
	Claims map[string]any `json:"claims"`
}

type fault struct {
	Fault
	left int
}

// AddFault makes f wait for its requests. Faults are tried in the order in
// which they were added.
func (s *Server) AddFault(f Fault) error {
	switch {
	case faultKinds[f.Kind] == nil:
		return fmt.Errorf("unknown kind of fault %q", f.Kind)
	case (f.Kind == "status" || f.Kind == "half" || f.Kind == "drip") && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("status %d: 200 to 599", f.Status)
	case f.Kind == "reset" && f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("status %d: 0, or 200 to 599", f.Status)
	case f.Times < 0:
		return fmt.Errorf("times %d: 0 or more", f.Times)
	case f.Grant != "" && f.Grant != grantCredentials && f.Grant != grantRefresh:
		return fmt.Errorf("unknown grant %q", f.Grant)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.stats.Routes[f.Route]; !known {
		return fmt.Errorf("unknown route %q", f.Route)
	}
	s.faults = append(s.faults, &fault{f, f.Times})
	return nil
}

// ClearFaults ends all faults. Requests that hang go on hanging.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Stats is a copy of the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.Routes, out.Grants = map[string]int{}, map[string]int{}
	for k, n := range s.stats.Routes {
		if n > 0 {
			out.Routes[k] = n
		}
	}
	for k, n := range s.stats.Grants {
		out.Grants[k] = n
	}
	return out
}

// counted counts a route's requests and lets faults have them first.
func (s *Server) counted(route string, h http.HandlerFunc) http.HandlerFunc {
	s.stats.Routes[route] = 0 // known from now on
	return func(w http.ResponseWriter, r *http.Request) {
		grant := ""
		if route == "POST /auth/token" {
			grant = peekGrant(r)
		}
		if f := s.count(route, grant); f != nil {
			faultKinds[f.Kind](s, *f, w, r)
			return
		}
		h(w, r)
	}
}

// peekGrant reads the grant type and leaves the body as it was.
func peekGrant(r *http.Request) string {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return ""
	}
	t, err := parseTokenRequest(body)
	if err != nil {
		return ""
	}
	return t.GrantType
}

// count returns the fault that the request meets, or nil.
func (s *Server) count(route, grant string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Routes[route]++
	if grant != "" {
		s.stats.Grants[grant]++
	}
	for i, f := range s.faults {
		if f.Route != route || f.Grant != "" && f.Grant != grant {
			continue
		}
		if f.Times > 0 {
			if f.left--; f.left == 0 {
				s.faults = slices.Delete(s.faults, i, i+1)
			}
		}
		found := f.Fault
		return &found
	}
	return nil
}

// control serves the routes that only a sandbox has.
type control struct{ *Server }

func (s control) writeStats(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.Stats())
}

func (s control) addFault(w http.ResponseWriter, r *http.Request) {
	var f Fault
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 2<<20))
	d.DisallowUnknownFields()
	err := d.Decode(&f)
	if err == nil {
		err = s.AddFault(f)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s control) clearFaults(w http.ResponseWriter, _ *http.Request) {
	s.ClearFaults()
	w.WriteHeader(http.StatusNoContent)
}
