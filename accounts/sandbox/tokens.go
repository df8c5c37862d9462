package sandbox

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The kinds of token, as the claim "kind" has them.
const (
	kindAccount = "account"
	kindAccess  = "access"
	kindRefresh = "refresh"
)

type claims struct {
	jwt.RegisteredClaims
	Kind string `json:"kind"`
}

// keys are what tokens are signed and checked with.
func (s *Server) keys() (method jwt.SigningMethod, sign, check any) {
	if s.config.Unsigned {
		return jwt.SigningMethodHS256, s.state.Key, s.state.Key
	}
	return jwt.SigningMethodRS256, s.key, s.key.Public()
}

func signed(s *Server, c jwt.Claims) (string, error) {
	method, key, _ := s.keys()
	return jwt.NewWithClaims(method, c).SignedString(key)
}

// mint signs a token. The caller holds s.mu.
func (s *Server) mint(kind, subject, id string, ttl time.Duration) (string, error) {
	now := s.config.Now()
	c := claims{Kind: kind, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: "bloq-sandbox", Subject: subject, ID: id, Audience: jwt.ClaimStrings{"bloq"},
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
	}}
	token, err := signed(s, c)
	if err != nil {
		return "", err
	}
	switch kind {
	case kindAccount:
		s.stats.Issued.Account++
	case kindAccess:
		s.stats.Issued.Access++
	case kindRefresh:
		s.stats.Issued.Refresh++
	}
	return token, nil
}

var errToken = errors.New("token is not valid")

// verify accepts what mint made and nothing else.
func (s *Server) verify(token string) (claims, error) {
	method, _, check := s.keys()
	var c claims
	_, err := jwt.ParseWithClaims(token, &c,
		func(*jwt.Token) (any, error) { return check, nil },
		// The method is named, or a token with "none", or with the public key as
		// an HMAC secret, would pass.
		jwt.WithValidMethods([]string{method.Alg()}), jwt.WithTimeFunc(s.config.Now), jwt.WithExpirationRequired(),
		jwt.WithIssuer("bloq-sandbox"))
	if err != nil {
		return claims{}, errToken
	}
	return c, nil
}

// bearer is the token of the Authorization header, verified.
func (s *Server) bearer(r *http.Request) (claims, error) {
	scheme, token, found := strings.Cut(r.Header.Get("Authorization"), " ")
	if !found || !strings.EqualFold(scheme, "Bearer") || len(r.Header.Values("Authorization")) != 1 {
		return claims{}, errToken
	}
	return s.verify(token)
}
