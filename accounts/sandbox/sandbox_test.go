package sandbox

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A desk is a sandbox over real HTTP, with a clock of its own.
type desk struct {
	t   *testing.T
	api *Server
	url string
	// arrived gets a value for each request, before it is served.
	arrived chan struct{}

	mu  sync.Mutex
	now time.Time
}

func newDesk(t *testing.T, c Config) *desk {
	t.Helper()
	d := &desk{t: t, now: time.Now(), arrived: make(chan struct{}, 1000)}
	c.Now = func() time.Time {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.now
	}
	api, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.arrived <- struct{}{}
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		api.Close()
		srv.Close()
	})
	d.api, d.url = api, srv.URL
	return d
}

func (d *desk) pass(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

type reply struct {
	AccessToken, RefreshToken, ClientID, ClientSecret, Code, Kind, Email string
}

// call makes a request; auth is the whole Authorization header.
func (d *desk) call(method, path, auth, body string) (int, reply, string) {
	d.t.Helper()
	r, err := http.NewRequest(method, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	var out reply
	_ = json.Unmarshal(b, &out) // an error body need not be JSON
	return a.StatusCode, out, string(b)
}

func (d *desk) want(status int, method, path, auth, body string) reply {
	d.t.Helper()
	got, out, text := d.call(method, path, auth, body)
	if got != status {
		d.t.Fatalf("%s %s: %d %s, want %d", method, path, got, text, status)
	}
	return out
}

func (d *desk) basic(user, password string) string {
	r, _ := http.NewRequest(http.MethodGet, d.url, nil)
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

// login returns an account token, client keys and what they buy.
func (d *desk) login() (account string, keys, grant reply) {
	d.t.Helper()
	account = d.want(200, "POST", "/auth", d.basic(d.api.Email(), d.api.Password()), "").AccessToken
	keys = d.want(200, "POST", "/users/me/client-keys", "Bearer "+account, "")
	grant = d.want(200, "POST", "/auth/token", "", `{"grantType":"clientCredentials","clientId":"`+keys.ClientID+`","clientSecret":"`+keys.ClientSecret+`"}`)
	return account, keys, grant
}

func (d *desk) refresh(status int, token string) reply {
	d.t.Helper()
	return d.want(status, "POST", "/auth/token", "", `{"grantType":"refreshToken","refreshToken":"`+token+`"}`)
}

func TestLoginHasTwoSpellingsAndTwoNames(t *testing.T) {
	d := newDesk(t, Config{Email: "a@b.example", Password: "pw"})
	for _, path := range []string{"/auth", "/auth/login"} {
		for _, user := range []string{"a@b.example", d.api.UserID()} {
			d.want(200, "POST", path, d.basic(user, "pw"), "")
		}
		d.want(401, "POST", path, d.basic("a@b.example", "no"), "")
		d.want(401, "POST", path, d.basic("", ""), "")
		d.want(401, "POST", path, "", "")
	}
}

// The two kinds of access token are not interchangeable, and a refresh token
// is neither.
func TestWhichTokenOpensWhat(t *testing.T) {
	d := newDesk(t, Config{})
	account, keys, grant := d.login()
	if len(keys.ClientID) != 40 || len(keys.ClientSecret) != 80 {
		t.Errorf("client keys of %d and %d digits", len(keys.ClientID), len(keys.ClientSecret))
	}
	for _, tt := range []struct {
		token                   string
		accounts, nodes, usersD int
	}{{account, 200, 200, 204}, {grant.AccessToken, 403, 200, 403}, {grant.RefreshToken, 403, 401, 403}} {
		d.want(tt.accounts, "GET", "/users/me", "Bearer "+tt.token, "")
		d.want(tt.accounts, "GET", "/users/me/client-keys", "Bearer "+tt.token, "")
		d.want(tt.nodes, "GET", "/nodes/v1/status", "Bearer "+tt.token, "")
	}
	d.want(403, "DELETE", "/users/me/client-keys/"+keys.ClientID, "Bearer "+grant.AccessToken, "")
	d.want(204, "DELETE", "/users/me/client-keys/"+keys.ClientID, "Bearer "+account, "")
	d.want(404, "DELETE", "/users/me/client-keys/"+keys.ClientID, "Bearer "+account, "")
	d.want(200, "GET", "/", "", "")
	d.want(404, "GET", "/elsewhere", "", "")
}

func TestTokensThatNobodyMintedAreRefused(t *testing.T) {
	d, other := newDesk(t, Config{}), newDesk(t, Config{})
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: mustPKIX(t, d.api)})
	refuses(t, d, func(good, noExpiry claims) map[string]string {
		return map[string]string{
			"HS256 with the public key": sign(t, jwt.SigningMethodHS256, good, public),
			"foreign":                   sign(t, jwt.SigningMethodRS256, good, other.api.key),
			"RS512":                     sign(t, jwt.SigningMethodRS512, good, d.api.key),
			"without an expiry":         sign(t, jwt.SigningMethodRS256, noExpiry, d.api.key),
		}
	})
}

func TestUnsignedTokensThatNobodyMintedAreRefused(t *testing.T) {
	d, signs := newDesk(t, Config{Unsigned: true}), newDesk(t, Config{})
	refuses(t, d, func(good, noExpiry claims) map[string]string {
		return map[string]string{
			"foreign":           sign(t, jwt.SigningMethodHS256, good, []byte("another key")),
			"RS256":             sign(t, jwt.SigningMethodRS256, good, signs.api.key),
			"HS512":             sign(t, jwt.SigningMethodHS512, good, d.api.state.Key),
			"without an expiry": sign(t, jwt.SigningMethodHS256, noExpiry, d.api.state.Key),
		}
	})
}

// refuses checks that d accepts what it minted, and none of what forge makes of that.
func refuses(t *testing.T, d *desk, forge func(good, noExpiry claims) map[string]string) {
	t.Helper()
	_, _, grant := d.login()
	d.want(200, "GET", "/nodes/v1/status", "Bearer "+grant.AccessToken, "")
	c, err := d.api.verify(grant.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	noExpiry := c
	noExpiry.ExpiresAt = nil
	forged := forge(c, noExpiry)
	forged["garbage"], forged["empty"], forged["cut"] = "garbage", "", grant.AccessToken[:len(grant.AccessToken)-4]
	forged["none"] = sign(t, jwt.SigningMethodNone, c, jwt.UnsafeAllowNoneSignatureType)
	for name, token := range forged {
		if status, _, _ := d.call("GET", "/nodes/v1/status", "Bearer "+token, ""); status != 401 {
			t.Errorf("%s: %d", name, status)
		}
	}
	for _, auth := range []string{grant.AccessToken, "Basic " + grant.AccessToken, "Bearer", "Bearer  " + grant.AccessToken} {
		if status, _, _ := d.call("GET", "/nodes/v1/status", auth, ""); status != 401 {
			t.Errorf("%.20q: %d", auth, status)
		}
	}
	d.want(200, "GET", "/nodes/v1/status", "bearer "+grant.AccessToken, "") // RFC 9110: the scheme's case does not matter
	d.pass(time.Hour)
	d.want(401, "GET", "/nodes/v1/status", "Bearer "+grant.AccessToken, "")
}

func mustPKIX(t *testing.T, s *Server) []byte {
	b, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sign(t *testing.T, m jwt.SigningMethod, c claims, key any) string {
	t.Helper()
	s, err := jwt.NewWithClaims(m, c).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLifetimes(t *testing.T) {
	d := newDesk(t, Config{})
	account, _, grant := d.login()
	for token, want := range map[string]time.Duration{account: 12 * time.Hour, grant.AccessToken: time.Hour, grant.RefreshToken: 8760 * time.Hour} {
		c, err := d.api.verify(token)
		if err != nil || c.ExpiresAt.Sub(c.IssuedAt.Time) != want {
			t.Errorf("%v lives %v, want %v", c.Kind, c.ExpiresAt.Sub(c.IssuedAt.Time), want)
		}
	}
	d.pass(8760*time.Hour + time.Second)
	d.refresh(401, grant.RefreshToken)
}

func TestWithoutRotationARefreshTokenStays(t *testing.T) {
	d := newDesk(t, Config{})
	_, _, grant := d.login()
	for range 3 {
		if r := d.refresh(200, grant.RefreshToken); r.RefreshToken != "" || r.AccessToken == "" {
			t.Errorf("%+v", r)
		}
	}
	d.refresh(401, grant.AccessToken)
	d.refresh(401, "garbage")
}

func TestStrictRotationRevokesTheFamilyOnReuse(t *testing.T) {
	d := newDesk(t, Config{Rotation: Rotation{On: true}})
	_, _, one := d.login()
	_, _, other := d.login()
	two := d.refresh(200, one.RefreshToken)
	three := d.refresh(200, two.RefreshToken)
	d.refresh(401, one.RefreshToken)
	d.refresh(401, three.RefreshToken) // the thief's or ours: nobody can tell
	d.refresh(200, other.RefreshToken) // another family
	if n := d.api.Stats().Reuse; n != 1 {
		t.Errorf("reuse counted %d times", n)
	}
}

func TestGraceAllowsTheTokenBeforeOnceMore(t *testing.T) {
	d := newDesk(t, Config{Rotation: Rotation{On: true, Grace: 30 * time.Second}})
	_, _, one := d.login()
	two := d.refresh(200, one.RefreshToken)
	d.pass(29 * time.Second)
	again := d.refresh(200, one.RefreshToken) // the reply was lost
	if id(t, d, again.RefreshToken) != id(t, d, two.RefreshToken) {
		t.Error("a retry got another successor")
	}
	d.pass(2 * time.Second)
	d.refresh(401, one.RefreshToken)
	d.refresh(401, two.RefreshToken)
	if n := d.api.Stats().Reuse; n != 1 {
		t.Errorf("reuse counted %d times", n)
	}
}

func TestGraceEndsWhenTheSuccessorIsUsed(t *testing.T) {
	d := newDesk(t, Config{Rotation: Rotation{On: true, Grace: 30 * time.Second}})
	_, _, one := d.login()
	two := d.refresh(200, one.RefreshToken)
	three := d.refresh(200, two.RefreshToken)
	d.refresh(401, one.RefreshToken)
	d.refresh(401, three.RefreshToken)
}

func id(t *testing.T, d *desk, token string) string {
	t.Helper()
	c, err := d.api.verify(token)
	if err != nil {
		t.Fatal(err)
	}
	return c.ID
}

func TestStateOutlivesTheServerAndHoldsNoSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	config := Config{StateFile: file, Rotation: Rotation{On: true}}
	d := newDesk(t, config)
	account, keys, grant := d.login()
	next := d.refresh(200, grant.RefreshToken)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{d.api.Password(), keys.ClientSecret, grant.RefreshToken, next.RefreshToken, account} {
		if strings.Contains(string(b), secret) {
			t.Errorf("the state holds %.10s… in clear", secret)
		}
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	again := newDesk(t, config)
	again.want(200, "POST", "/auth", again.basic(d.api.Email(), d.api.Password()), "")
	again.want(200, "GET", "/users/me", "Bearer "+account, "")
	again.refresh(200, next.RefreshToken)
	again.refresh(401, grant.RefreshToken) // used before the restart
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(config); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a damaged state: %v", err)
	}
}

func TestStatsHaveTheirDocumentedForm(t *testing.T) {
	d := newDesk(t, Config{})
	_, _, grant := d.login()
	d.refresh(200, grant.RefreshToken)
	d.refresh(401, "garbage")
	_, _, text := d.call("GET", "/_sandbox/stats", "", "")
	want := `{"routes":{"POST /auth":1,"POST /auth/token":3,"POST /users/me/client-keys":1},"grants":{"clientCredentials":1,"refreshToken":2},` +
		`"issued":{"account":1,"access":2,"refresh":1},"reuse":0}`
	if strings.TrimSpace(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestFaults(t *testing.T) {
	d := newDesk(t, Config{})
	_, _, grant := d.login()
	d.want(204, "POST", "/_sandbox/faults", "", `{"route":"POST /auth/token","grant":"refreshToken","times":2,"kind":"status","status":503,"header":{"Retry-After":"2"},"body":"x"}`)
	r, err := http.Post(d.url+"/auth/token", "application/json", strings.NewReader(`{"grantType":"refreshToken","refreshToken":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if r.StatusCode != 503 || r.Header.Get("Retry-After") != "2" || string(body) != "x" {
		t.Errorf("%d %q", r.StatusCode, body)
	}
	d.login() // another grant is not touched
	d.refresh(503, grant.RefreshToken)
	d.refresh(200, grant.RefreshToken) // used up

	d.want(204, "POST", "/_sandbox/faults", "", `{"route":"GET /","kind":"reset"}`)
	for range 3 { // times 0: until cleared
		if a, err := http.Get(d.url + "/"); err == nil {
			_ = a.Body.Close()
			t.Error("reset answered")
		}
	}
	d.want(204, "DELETE", "/_sandbox/faults", "", "")
	d.want(200, "GET", "/", "", "")

	for _, bad := range []string{
		`{"route":"GET /","kind":"explode"}`, `{"route":"GET /nowhere","kind":"reset"}`, `{"route":"GET /","kind":"status"}`,
		`{"route":"GET /","kind":"reset","times":-1}`, `{"route":"GET /","kind":"reset","status":99}`, `{"route":"POST /auth/token","kind":"reset","grant":"x"}`, `{"colour":1}`, `x`,
	} {
		d.want(400, "POST", "/_sandbox/faults", "", bad)
	}
}

// A reset is one on the wire: the answer's head, if there is to be one, arrives
// before it.
func TestAResetBreaksTheConnection(t *testing.T) {
	d := newDesk(t, Config{})
	add := func(f Fault) {
		t.Helper()
		f.Route, f.Kind, f.Times = "GET /", "reset", 1
		if err := d.api.AddFault(f); err != nil {
			t.Fatal(err)
		}
	}
	add(Fault{})
	if _, err := http.Get(d.url + "/"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without a word: %v", err)
	}
	add(Fault{Status: 200, Header: map[string]string{"Content-Length": "100", "X-Head": "came"}})
	r, err := http.Get(d.url + "/")
	if err != nil || r.Header.Get("X-Head") != "came" {
		t.Fatalf("after the head: %v", err)
	}
	defer func() { _ = r.Body.Close() }()
	if b, err := io.ReadAll(r.Body); len(b) != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the head: %q, %v", b, err)
	}
}

// The bomb is small on the wire, and what it says it is.
func TestTheBombIsAGibibyte(t *testing.T) {
	d := newDesk(t, Config{})
	if err := d.api.AddFault(Fault{Route: "GET /", Kind: "bomb"}); err != nil {
		t.Fatal(err)
	}
	r, err := (&http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}).Get(d.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("Content-Encoding") != "gzip" || len(b) >= 1<<20 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	// A member, and the same again and again: to inflate it all takes seconds.
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	z.Multistream(false)
	n, err := io.Copy(io.Discard, z)
	if err != nil || n*bombMembers != 1<<30 || string(b) != strings.Repeat(string(bombMember()), bombMembers) {
		t.Errorf("a member of %d bytes, %v", n, err)
	}
	t.Logf("%d bytes are %d", len(b), n*bombMembers)
}

func TestAHangingRequestEndsWithItsClientOrTheServer(t *testing.T) {
	d := newDesk(t, Config{})
	if err := d.api.AddFault(Fault{Route: "GET /", Kind: "hang"}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		a, err := http.Get(d.url + "/")
		if err == nil {
			_ = a.Body.Close()
		}
		ended <- err
	}()
	<-d.arrived
	select {
	case <-ended:
		t.Fatal("it did not hang")
	default:
	}
	d.api.Close()
	<-ended
}

func TestParseRotation(t *testing.T) {
	for s, want := range map[string]Rotation{"none": {}, "strict": {On: true}, "grace=30s": {On: true, Grace: 30 * time.Second}} {
		if got, err := ParseRotation(s); got != want || err != nil {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "grace", "grace=", "grace=0s", "grace=-1s", "always"} {
		if _, err := ParseRotation(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func FuzzParseTokenRequestKnowsItsGrant(f *testing.F) {
	f.Add([]byte(`{"grantType":"refreshToken","refreshToken":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseTokenRequest(b)
		if err == nil && r.GrantType != grantCredentials && r.GrantType != grantRefresh {
			t.Fatalf("%q", r.GrantType)
		}
	})
}
