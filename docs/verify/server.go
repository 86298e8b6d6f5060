// A tool server that runs what oakallow let through, and nothing else. golang-jwt, jcs, net/http.
//
// Set: BACKEND (URL), TOOL_KEY (oak_tool_…), ORG, AUDIENCE, ALG (HS256 or EdDSA: the one that is set for the audience),
// BASE_URL (this server as the proxy's route names it: `upstream`), PORT.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gowebpki/jcs"
)

const bodyBytesMax = 1024 * 1024

var (
	backend, toolKey = os.Getenv("BACKEND"), os.Getenv("TOOL_KEY")
	audience, alg    = os.Getenv("AUDIENCE"), os.Getenv("ALG")
	issuer           = "oakallow/" + os.Getenv("ORG")
	baseURL          = strings.TrimRight(os.Getenv("BASE_URL"), "/")
	// No HTTP proxy of the environment stands between us and the backend.
	client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{Proxy: nil}}
	parser = jwt.NewParser(
		jwt.WithValidMethods([]string{alg}),
		jwt.WithAudience(audience),
		jwt.WithIssuer(issuer),
		jwt.WithExpirationRequired(),
		jwt.WithNotBeforeRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(5*time.Second),
		jwt.WithStrictDecoding(),
	)
)

// errUnchecked: the backend is away, or says what we do not understand.
var errUnchecked = errors.New("the token could not be checked")

// ask gives the backend's answer. Without one nothing runs.
func ask(method, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(method, backend+path, bytes.NewReader(text))
	if err != nil {
		return errUnchecked
	}
	request.Header.Set("X-API-Key", toolKey)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return errUnchecked
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || json.NewDecoder(response.Body).Decode(answer) != nil {
		return errUnchecked
	}
	return nil
}

// The audience's keys: fetched again every five minutes, and for an unknown kid (a rotation), but not more often than
// every five seconds, whoever sends what.
var (
	keysLock sync.Mutex
	keys     map[string]any
	fetched  time.Time
)

func findKey(kid string) (any, error) {
	keysLock.Lock()
	defer keysLock.Unlock()
	age := time.Since(fetched)
	if _, known := keys[kid]; age > 5*time.Minute || (!known && age > 5*time.Second) {
		fetched = time.Now()
		if err := fetchKeys(); err != nil {
			return nil, err
		}
	}
	if key, known := keys[kid]; known {
		return key, nil
	}
	return nil, errors.New("unknown key")
}

func fetchKeys() error {
	var set struct {
		Keys []struct{ Kid, Kty, Alg, K, Crv, X string }
	}
	if err := ask(http.MethodGet, "/v1/audiences/"+audience+"/keys", nil, &set); err != nil {
		return err
	}
	keys = map[string]any{}
	for _, key := range set.Keys {
		k, errK := base64.RawURLEncoding.DecodeString(key.K)
		x, errX := base64.RawURLEncoding.DecodeString(key.X)
		// A key for another algorithm than ours is no key, not another way to verify.
		switch {
		case errK != nil || errX != nil || key.Alg != alg:
		case alg == "HS256" && key.Kty == "oct" && len(k) == 32:
			keys[key.Kid] = k
		case alg == "EdDSA" && key.Crv == "Ed25519" && len(x) == ed25519.PublicKeySize:
			keys[key.Kid] = ed25519.PublicKey(x)
		}
	}
	return nil
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// call is what a request carries.
type call struct {
	token, tool, method, htu string
	body                     []byte
}

// argumentsDigest is of the canonical form (RFC 8785).
func (c *call) argumentsDigest() (string, error) {
	canonical, err := jcs.Transform(c.body)
	return digest(canonical), err
}

// check says whether the token is for exactly this call. Offline; the token is not used up by it.
func (c *call) check() error {
	claims := jwt.MapClaims{}
	_, err := parser.ParseWithClaims(c.token, claims, func(token *jwt.Token) (any, error) {
		if token.Header["typ"] != "oakallow-exec+jwt" {
			return nil, errors.New("wrong type")
		}
		kid, _ := token.Header["kid"].(string)
		return findKey(kid)
	})
	if err != nil {
		return err
	}
	issued, errIssued := claims.GetIssuedAt()
	expires, errExpires := claims.GetExpirationTime()
	if errIssued != nil || errExpires != nil || issued == nil || expires.Sub(issued.Time) > time.Minute {
		return errors.New("lives too long")
	}
	arguments, err := c.argumentsDigest()
	if err != nil {
		return err
	}
	expected := map[string]any{
		"bnd": "request", "htm": c.method, "htu": c.htu, "bdh": digest(c.body), "tool": c.tool, "ah": arguments,
		// A tool that acts on a resource puts here which one, as it read it from the arguments.
		"resource": nil,
	}
	for claim, value := range expected {
		if claims[claim] != value {
			return fmt.Errorf("the token has another %s", claim)
		}
	}
	return nil
}

// redeem uses the token up. The backend says yes once.
func (c *call) redeem() error {
	arguments, err := c.argumentsDigest()
	if err != nil {
		return err
	}
	var answer struct {
		Valid  bool
		Reason string
	}
	err = ask(http.MethodPost, "/v1/tokens/verify", map[string]string{
		"token": c.token, "tool_name": c.tool, "htm": c.method, "htu": c.htu,
		"body_sha256": digest(c.body), "arguments_sha256": arguments,
	}, &answer)
	if err == nil && !answer.Valid {
		err = errors.New(answer.Reason)
	}
	return err
}

func run(r *http.Request) (any, error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, bodyBytesMax))
	if err != nil {
		return nil, err
	}
	tokens := r.Header.Values("X-Oakallow-Token")
	if len(tokens) != 1 {
		return nil, errors.New("not exactly one token")
	}
	tool := strings.TrimPrefix(r.URL.Path, "/tools/")
	c := call{tokens[0], tool, r.Method, baseURL + r.RequestURI, body}
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.redeem(); err != nil {
		return nil, err
	}
	return map[string]any{"ran": tool, "arguments": json.RawMessage(body)}, nil
}

func serve(w http.ResponseWriter, r *http.Request) {
	status := http.StatusOK
	answer, err := run(r)
	switch {
	case errors.Is(err, errUnchecked):
		status, answer = http.StatusServiceUnavailable, map[string]string{"refused": errUnchecked.Error()}
	case err != nil:
		status, answer = http.StatusForbidden, map[string]string{"refused": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(serve)))
}
