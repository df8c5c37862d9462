package accounts

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// jwtWith is a token as the endpoint mints it; nobody here looks at its
// signature.
func jwtWith(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newTestClient(t *testing.T, url string) *Client {
	t.Helper()
	c, err := New(FromAccountsURL(url), Options{UserAgent: "test/1"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hearing reads the request's body before h answers: a connection that is
// closed over unread bytes is reset, and the client may lose the answer.
func hearing(t *testing.T, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
		h.ServeHTTP(w, r)
	})
}

// serve runs an endpoint that answers everything with f, and counts.
func serve(t *testing.T, f http.HandlerFunc) (*Client, *atomic.Int32) {
	t.Helper()
	var n atomic.Int32
	srv := httptest.NewServer(hearing(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		f(w, r)
	})))
	t.Cleanup(srv.Close)
	return newTestClient(t, srv.URL), &n
}

func TestWhatIsSent(t *testing.T) {
	var method, path, auth, body, contentType string
	token := jwtWith(t, jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()})
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.ContentLength != int64(len(b)) {
			t.Errorf("%s: Content-Length %d for %d bytes", r.URL.Path, r.ContentLength, len(b))
		}
		method, path, auth, body, contentType = r.Method, r.URL.Path, r.Header.Get("Authorization"), string(b), r.Header.Get("Content-Type")
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `[{"id":"a","createdAt":"2026-01-02T03:04:05Z"},{"id":"b"}]`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"accessToken": token, "refreshToken": token, "clientId": "id", "clientSecret": "se"})
	})
	ctx := t.Context()
	for _, tt := range []struct {
		call func() error
		want [5]string
	}{
		{func() error { _, err := c.Login(ctx, "a@b.example", []byte("p:w")); return err }, [5]string{"POST", "/auth", "Basic YUBiLmV4YW1wbGU6cDp3", "", ""}},
		{
			func() error { _, err := c.ClientCredentials(ctx, "id", []byte("se")); return err },
			[5]string{"POST", "/auth/token", "", `{"clientId":"id","clientSecret":"se","grantType":"clientCredentials"}`, "application/json"},
		},
		{
			func() error { _, err := c.Refresh(ctx, []byte("re")); return err },
			[5]string{"POST", "/auth/token", "", `{"grantType":"refreshToken","refreshToken":"re"}`, "application/json"},
		},
		{func() error {
			k, err := c.CreateKey(ctx, []byte("ac"))
			if k.ID != "id" || string(k.Secret) != "se" {
				t.Errorf("%s %s", k.ID, k.Secret)
			}
			return err
		}, [5]string{"POST", "/users/me/client-keys", "Bearer ac", "", ""}},
		{func() error {
			k, err := c.ListKeys(ctx, []byte("ac"))
			if len(k) != 2 || k[0].ID != "a" || k[0].CreatedAt.Year() != 2026 {
				t.Errorf("%v", k)
			}
			return err
		}, [5]string{"GET", "/users/me/client-keys", "Bearer ac", "", ""}},
		{func() error { return c.DeleteKey(ctx, []byte("ac"), "a-1") }, [5]string{"DELETE", "/users/me/client-keys/a-1", "Bearer ac", "", ""}},
	} {
		if err := tt.call(); err != nil {
			t.Error(err)
		}
		if got := [5]string{method, path, auth, body, contentType}; got != tt.want {
			t.Errorf("sent %q, want %q", got, tt.want)
		}
	}
	if c.DeleteKey(ctx, nil, "..") == nil || c.DeleteKey(ctx, nil, "a/b") == nil {
		t.Error("took what is no client ID")
	}
	if _, err := c.Login(ctx, "a:b", nil); err == nil {
		t.Error("took a user with a colon, which Basic cannot carry")
	}
}

func TestClasses(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		class  Class
		code   string
	}{
		{400, `{"error":"invalid_grant"}`, InvalidGrant, "invalid_grant"},
		{401, `{"error":"invalid_grant"}`, InvalidGrant, "invalid_grant"},
		{403, `{"error":"bad_refresh_token"}`, InvalidGrant, "bad_refresh_token"},
		{401, `{"error":"invalid_client"}`, Configuration, "invalid_client"},
		{400, `{"error":"unauthorized_client"}`, Configuration, "unauthorized_client"},
		{400, `{"error":"unsupported_grant_type"}`, Configuration, "unsupported_grant_type"},
		{400, `{"error":"invalid_request"}`, Unknown, "invalid_request"},
		{400, ``, Unknown, ""},
		{404, `{"code":"NotFound"}`, Unknown, "NotFound"},
		{401, `jwt expired`, Refused, ""},
		{401, `{"code":"Unauthorized"}`, Refused, "Unauthorized"},
		{403, `{"message":"no"}`, Refused, ""},
		{403, `{"code":"line\nbreak and secret"}`, Refused, ""},
		{403, `{"code":7}`, Refused, ""},
		{408, ``, Transient, ""},
		{425, ``, Transient, ""},
		{429, ``, Transient, ""},
		{500, ``, Transient, ""},
		{501, ``, Transient, ""},
		{503, `{"error":"invalid_grant"}`, Transient, "invalid_grant"},
		{302, ``, Transient, ""},
		{304, ``, Transient, ""},
		{200, `<html>log in to the wifi</html>`, Transient, ""},
		{200, ``, Transient, ""},
		{200, `{}`, Malformed, ""},
		{200, `[]`, Malformed, ""},
		{200, `null`, Malformed, ""},
		{200, `{"accessToken":""}`, Malformed, ""},
		{200, `{"accessToken":null}`, Malformed, ""},
		{200, `{"accessToken":7}`, Malformed, ""},
		{200, `{"accessToken":"a b"}`, Malformed, ""},
		{200, `{"accessToken":"a\nb"}`, Malformed, ""},
		{200, `{"accessToken":"ä"}`, Malformed, ""},
		{200, `{"ACCESSTOKEN":"a"}`, Malformed, ""},
		{200, `{"accesstoken":"a","Accesstoken":"b"}`, Malformed, ""},
		{200, `{"accessToken":"a","accessToken":"b"}`, Malformed, ""},
		{200, `{"accessToken":"a","more":1,"more":2}`, Malformed, ""},
		{400, `{"ERROR":"invalid_grant"}`, Unknown, ""},
		{400, `{"error":"invalid_grant","error":"x"}`, Unknown, ""},
		{200, `{"accessToken":"` + strings.Repeat("x", 64<<10+1) + `"}`, Malformed, ""},
		{200, strings.Repeat("x", 1<<20+1), Malformed, ""},
	} {
		c, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
			// Closing with an unread request resets the connection, and a long answer
			// with it.
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(tt.status)
			_, _ = io.WriteString(w, tt.body)
		})
		_, err := c.Refresh(t.Context(), []byte("secret-token"))
		var e *Error
		if !errors.As(err, &e) || e.Class != tt.class || e.Code != tt.code {
			t.Errorf("%d %.60q: %#v, want class %d and code %q", tt.status, tt.body, err, tt.class, tt.code)
			continue
		}
		if text := err.Error(); strings.Contains(text, "\n") || strings.Contains(text, "secret") || strings.Contains(text, "wifi") {
			t.Errorf("%d %.60q: the error says %q", tt.status, tt.body, text)
		}
		if n.Load() != 1 {
			t.Errorf("%d: %d requests", tt.status, n.Load())
		}
	}
}

func TestSuccessNeedsNoMoreThanAnAccessToken(t *testing.T) {
	for _, status := range []int{200, 201} {
		c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"accessToken":"not-even-a-jwt","more":1}`)
		})
		before := time.Now()
		g, err := c.Refresh(t.Context(), []byte("re"))
		if err != nil || string(g.AccessToken) != "not-even-a-jwt" || g.RefreshToken != nil || !g.RefreshExpiry.IsZero() {
			t.Errorf("%v, %v", g, err)
		}
		if life := g.Expiry.Sub(g.IssuedAt); life != time.Hour || g.IssuedAt.Before(before.Round(0).Add(-time.Second)) {
			t.Errorf("issued %v, lives %v", g.IssuedAt, life)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v %s %x", g, g, g, g, g), "jwt") {
			t.Error("a grant prints its token")
		}
	}
}

// A refresh token that cannot be used is refused alone; "" and null are none.
func TestARefreshTokenBesideAGoodAccessToken(t *testing.T) {
	for member, want := range map[string]string{
		`"refreshToken":""`: "", `"refreshToken":null`: "", `"refreshToken":"","x":1`: "", `"refreshToken":"a"`: "",
		`"refreshToken":"a\nb"`: "it holds a character that no header may hold",
		`"refreshToken":"ä"`:    "it holds a character that no header may hold",
		`"refreshToken":7`:      "it is no string",
		`"refreshToken":{}`:     "it is no string",
		`"refreshToken":"` + strings.Repeat("x", 70000) + `"`: "it is longer than 64 KiB",
		`"refreshToken":"a","refreshToken":"b"`:               "it is there twice",
		`"refreshToken":"a","refreshToken":"a"`:               "it is there twice",
		`"refreshToken":null,"refreshToken":"a"`:              "it is there twice",
	} {
		c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{`+member+`,"accessToken":"good"}`)
		})
		g, err := c.Refresh(t.Context(), []byte("re"))
		if err != nil || string(g.AccessToken) != "good" || (g.RefreshToken != nil) != (member == `"refreshToken":"a"`) {
			t.Errorf("%.60s: %s, %q, %v", member, g.AccessToken, g.RefreshToken, err)
		}
		if (want == "") != (g.RefreshErr == nil) || want != "" && g.RefreshErr.Error() != want {
			t.Errorf("%.60s: %v, want %q", member, g.RefreshErr, want)
		}
	}
}

// iat and exp are whole seconds, cut; a request is sent at any moment of one.
func TestAGrantEndsWithItsTokenWhereTheClocksAgree(t *testing.T) {
	for _, claims := range []func(now int64) jwt.MapClaims{
		func(now int64) jwt.MapClaims { return jwt.MapClaims{"iat": now, "exp": now + 20} },
		func(now int64) jwt.MapClaims { return jwt.MapClaims{"exp": now + 20} },
	} {
		var exp time.Time
		c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			now := time.Now().Unix()
			exp = time.Unix(now+20, 0)
			_ = json.NewEncoder(w).Encode(map[string]string{"accessToken": jwtWith(t, claims(now))})
		})
		for range 100 { // each at another moment of the second
			sent := time.Now().Round(0)
			g, err := c.Refresh(t.Context(), []byte("re"))
			if err != nil || g.Expiry.After(exp) || g.Expiry.Before(exp.Add(-2*time.Second)) {
				t.Errorf("served until %v, %v; the token ends at %v", g.Expiry, err, exp)
			}
			if ahead := sent.Sub(g.IssuedAt); ahead < -time.Second || ahead >= time.Second {
				t.Errorf("sent at %v, issued at %v", sent, g.IssuedAt)
			}
		}
	}
}

// A date that is only shown loses no client keys: their secret cannot be had again.
func TestADateThatCannotBeReadIsUnknown(t *testing.T) {
	for _, date := range []string{`99999999999999999999`, `1764000000`, `"yesterday"`, `"10000-01-01T00:00:00Z"`, `null`, `{}`} {
		c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				_, _ = io.WriteString(w, `[{"createdAt":`+date+`,"id":"a"}]`)
				return
			}
			_, _ = io.WriteString(w, `{"createdAt":`+date+`,"clientId":"a","clientSecret":"se"}`)
		})
		k, err := c.CreateKey(t.Context(), []byte("ac"))
		if err != nil || k.ID != "a" || !k.CreatedAt.IsZero() {
			t.Errorf("%s: %v, %v", date, k, err)
		}
		if keys, err := c.ListKeys(t.Context(), []byte("ac")); err != nil || len(keys) != 1 || !keys[0].CreatedAt.IsZero() {
			t.Errorf("%s: %v, %v", date, keys, err)
		}
	}
}

// Only the exact name counts; what differs from it in case is something else.
func TestNamesAreExact(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet:
			_, _ = io.WriteString(w, `[{"ID":"wrong","id":"right","Id":"wrong"}]`)
		case r.URL.Path == "/auth/token":
			_, _ = io.WriteString(w, `{"ACCESSTOKEN":"wrong","accessToken":"right","AccessToken":"wrong","RefreshToken":"wrong"}`)
		default:
			_, _ = io.WriteString(w, `{"clientId":"right","CLIENTID":"wrong","clientSecret":"right","ClientSecret":"wrong"}`)
		}
	})
	if g, err := c.Refresh(t.Context(), []byte("re")); err != nil || string(g.AccessToken) != "right" || g.RefreshToken != nil {
		t.Errorf("%s, %s, %v", g.AccessToken, g.RefreshToken, err)
	}
	if k, err := c.CreateKey(t.Context(), []byte("ac")); err != nil || k.ID != "right" || string(k.Secret) != "right" {
		t.Errorf("%s, %s, %v", k.ID, k.Secret, err)
	}
	if keys, err := c.ListKeys(t.Context(), []byte("ac")); err != nil || len(keys) != 1 || keys[0].ID != "right" {
		t.Errorf("%v, %v", keys, err)
	}
}

// The other origin must not see a byte, whatever the kind of redirect.
func TestARedirectIsNotFollowed(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		c, n := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, status) })
		var e *Error
		if _, err := c.Refresh(t.Context(), []byte("re")); !errors.As(err, &e) || e.Class != Transient || e.Status != status {
			t.Errorf("%d: %v", status, err)
		}
		if _, err := c.Login(t.Context(), "u", []byte("p")); err == nil {
			t.Errorf("%d: logged in", status)
		}
		if n.Load() != 2 || elsewhere.Load() != 0 {
			t.Errorf("%d: %d requests, %d elsewhere", status, n.Load(), elsewhere.Load())
		}
	}
}

// A refresh token is spent by one use, so a broken connection is not tried
// again from here.
func TestABrokenConnectionIsNotRepeated(t *testing.T) {
	c, n := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	})
	for range 3 {
		var e *Error
		if _, err := c.Refresh(t.Context(), []byte("re")); !errors.As(err, &e) || e.Class != Transient {
			t.Errorf("%v", err)
		}
	}
	if n.Load() != 3 {
		t.Errorf("3 calls made %d requests", n.Load())
	}
}

func TestABodyThatBreaksOff(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"accessToken":"eyJ`)
	})
	var e *Error
	if _, err := c.Refresh(t.Context(), []byte("re")); !errors.As(err, &e) || e.Class != Transient {
		t.Errorf("%v", err)
	}
}

func TestAServerThatIsNotTrusted(t *testing.T) {
	srv := httptest.NewUnstartedServer(hearing(t, http.NotFoundHandler()))
	quiet := log.New(io.Discard, "", 0) // a handshake that fails is what is wanted
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	defer srv.Close()
	var e *Error
	if _, err := newTestClient(t, srv.URL).Refresh(t.Context(), []byte("re")); !errors.As(err, &e) || !e.Untrusted || e.Class != Transient {
		t.Errorf("self-signed: %v", err)
	}
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.Config.ErrorLog = quiet
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.StartTLS()
	defer old.Close()
	pool := srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c, err := New(FromAccountsURL(old.URL), Options{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Refresh(t.Context(), []byte("re")); !errors.As(err, &e) || e.Status != 0 {
		t.Errorf("TLS 1.1: %v", err)
	}
	trusted, err := New(FromAccountsURL(srv.URL), Options{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trusted.Refresh(t.Context(), []byte("re")); !errors.As(err, &e) || e.Status != 404 {
		t.Errorf("with its certificate trusted: %v", err)
	}
}

// The names in a certificate are text of whoever made it, and go to a terminal.
func TestACertificatesNamesArePrintable(t *testing.T) {
	cert := &x509.Certificate{DNSNames: []string{"a\nb\x1b[2J\u202e.example"}}
	err := failedCall("refresh", &url.Error{Err: &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: cert, Host: "bloq.example"}}})
	const want = "refresh: tls: failed to verify certificate: x509: certificate is valid for a?b?[2J?.example, not bloq.example"
	if err.Error() != want || !err.Untrusted {
		t.Errorf("%q, untrusted %v", err, err.Untrusted)
	}
}

func TestASilentEndpointIsGivenUpAfter20Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(FromAccountsURL("http://127.0.0.1:1"), Options{
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, theirs) }() // hears all, says nothing
				return ours, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = c.Refresh(t.Context(), []byte("re"))
		var e *Error
		if !errors.As(err, &e) || e.Class != Transient || err.Error() != "refresh: no answer in time" {
			t.Errorf("%v", err)
		}
		if d := time.Since(start); d != 20*time.Second {
			t.Errorf("after %v", d)
		}
	})
}

func TestATLSHandshakeIsGivenUpAfter5Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(FromAccountsURL("https://127.0.0.1:1"), Options{
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, theirs) }()
				return ours, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var e *Error
		if _, err = c.Refresh(t.Context(), []byte("re")); !errors.As(err, &e) || e.Class != Transient {
			t.Errorf("%v", err)
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("after %v", d)
		}
	})
}

// Without a network of its own a client dials for 5 s. No test can wait for
// that in virtual time, so this looks at the parts.
func TestADialIsGivenUpAfter5Seconds(t *testing.T) {
	if dialer.Timeout != 5*time.Second {
		t.Errorf("dials for %v", dialer.Timeout)
	}
	c := newTestClient(t, "http://127.0.0.1:1")
	refuse := errors.New("seen")
	defer func(old net.Dialer) { dialer = old }(dialer)
	dialer.Control = func(string, string, syscall.RawConn) error { return refuse }
	if _, err := c.Refresh(t.Context(), []byte("re")); !errors.Is(err, refuse) {
		t.Errorf("the client has a dialer of its own: %v", err)
	}
}

func TestTextsForPeople(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) })
	if _, err := c.Login(t.Context(), "u", []byte("p")); err == nil || err.Error() != "login: wrong user or password" {
		t.Errorf("%v", err)
	}
	if _, err := c.ClientCredentials(t.Context(), "i", []byte("s")); err == nil || err.Error() != "client credentials: wrong client ID or client secret" {
		t.Errorf("%v", err)
	}
	if _, err := c.Refresh(t.Context(), []byte("s")); err == nil || err.Error() != "refresh: 401 Unauthorized" {
		t.Errorf("%v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "0": 0, "2": 2 * time.Second, " 3600 ": time.Hour, "-1": 0, "soon": 0, "1.5": 0,
		"99999999999":                                         24 * time.Hour,
		"99999999999999999999":                                24 * time.Hour,
		"Fri, 31 Dec 9999 23:59:59 GMT":                       24 * time.Hour,
		"Sat, 01 Jan 0000 00:00:00 GMT":                       0,
		now.Add(time.Minute).Format(http.TimeFormat):          time.Minute,
		now.Add(-time.Minute).Format(http.TimeFormat):         0,
		"Tuesday, 24-Nov-26 12:01:00 GMT":                     time.Minute,
		"2026-11-24T12:01:00Z":                                0,
		now.Add(48 * time.Hour).Format("Mon, 02 Jan 2006"):    0,
		now.Add(2 * time.Second).Format("Mon Jan 2 15:04:05"): 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("Retry-After: %s is %v, want %v", s, got, want)
		}
	}
}

func FuzzRetryAfterIsADayAtMost(f *testing.F) {
	f.Add("2")
	f.Add("Tue, 24 Nov 2026 12:01:00 GMT")
	f.Fuzz(func(t *testing.T, s string) {
		if d := retryAfter(s, time.Unix(1_800_000_000, 0)); d < 0 || d > 24*time.Hour {
			t.Fatalf("%q is %v", s, d)
		}
	})
}

func FuzzCodeOfIsOneWord(f *testing.F) {
	f.Add([]byte(`{"error":"invalid_grant","code":"x y"}`))
	for _, no := range []string{"two words", `line\n`, `\u001b[2J`, "päss", strings.Repeat("x", 65)} {
		f.Add([]byte(`{"error":"` + no + `"}`))
		f.Add([]byte(`{"code":"` + no + `"}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if code := codeOf(b); code != "" && !isWord(code) {
			t.Fatalf("%q", code)
		}
	})
}

func FuzzTheTokensOfAnAnswerAreSendable(f *testing.F) {
	f.Add([]byte(`{"accessToken":"a","refreshToken":""}`))
	f.Add([]byte(`{"refreshToken":"a\u0007","accessToken":"a","refreshToken":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var access token
		var refresh optional
		err := members{"accessToken": &access, "refreshToken": &refresh}.decode(b)
		if !Sendable(access) || !Sendable(refresh.token) || refresh.err != nil && refresh.token != nil || err != nil && !json.Valid(b) && refresh.token != nil {
			t.Fatalf("%q: %q, %q, %v, %v", b, access, refresh.token, refresh.err, err)
		}
	})
}

func TestSkew(t *testing.T) {
	ours := time.Date(2026, 11, 24, 12, 0, 0, 300e6, time.UTC)
	jwt := func(iat time.Time) []byte {
		payload := fmt.Sprintf(`{"iat":%d,"exp":%d}`, iat.Unix(), iat.Unix()+3600)
		enc := base64.RawURLEncoding.EncodeToString
		return []byte(enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(payload)) + ".")
	}
	for name, tt := range map[string]struct {
		date  string
		token []byte
		want  time.Duration
	}{
		"the same second": {"Tue, 24 Nov 2026 12:00:00 GMT", jwt(ours), 0},
		"ahead":           {"Tue, 24 Nov 2026 12:01:00 GMT", jwt(ours), time.Minute},
		"behind":          {"Tue, 24 Nov 2026 11:59:00 GMT", jwt(ours), -time.Minute},
		"no date":         {"", jwt(ours.Add(time.Hour)), time.Hour},
		"garbage":         {"yesterday", jwt(ours.Add(-45 * time.Second)), -45 * time.Second},
		"nothing":         {"", []byte("opaque"), 0},
		"from 1970":       {"Thu, 01 Jan 1970 00:00:00 GMT", jwt(ours), time.Unix(0, 0).Sub(ours.Truncate(time.Second))},
		"far ahead":       {"Fri, 31 Dec 9999 23:59:59 GMT", jwt(ours), 36500 * 24 * time.Hour},
		"far behind":      {"Sat, 01 Jan 0000 00:00:00 GMT", jwt(ours), -36500 * 24 * time.Hour},
		"far by its iat":  {"", jwt(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)), 36500 * 24 * time.Hour},
	} {
		if got := skew(tt.date, tt.token, ours); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
