package signing

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"clawker-fw/internal/statussocket"
)

// The secrets that Envoy puts into requests are on its one stream, too, as resources of their own (`secret:ID`). The client
// gives them, all at once, over a socket that only root can open. They are in the memory of the signer, and in a file of the
// supervisor's that is in memory as well (memfd_create(2)): they outlive the signer, and end with the container. Those that the
// user wants to outlive it are also in a file on the disk, which the supervisor hands down.
//
// Envoy goes on using a secret that it is told is removed. So one that nobody has given, or that is taken away, is empty:
// then Envoy refuses the request.

// SecretPrefix begins the names of resources with secrets.
const SecretPrefix = "secret" + reserved

// secretID is what may follow. A server name that a rule inspects has a dot, so no agent can ask for one of these.
var secretID = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}(#[a-z]{1,16})?$`)

const (
	mostSecrets   = 1000
	longestSecret = 8 << 10
	mostGiven     = mostSecrets * (longestSecret + 256) // octets
	givingTime    = 5 * time.Second
)

// Giving is what the client says: a key for this one conversation, and, unless it only asks, all secrets by id.
type Giving struct {
	Key  []byte            `json:"key"`
	Give map[string]string `json:"give"` // null to ask only
	Keep []string          `json:"keep"` // ids of further ones that stay as they are
	Rest []string          `json:"rest"` // ids of those, of both, that are also kept on the disk
}

// Held is what there is then: of each secret, the HMAC-SHA-256 of its id and value under the key, in hexadecimal, and when it
// was given. Neither shows a secret to whoever has not got it.
type Held struct {
	Secrets map[string]HeldSecret `json:"secrets"`
	Error   string                `json:"error,omitempty"` // why nothing was changed, between fwctl and the signer
}

// NoVersion is the version of a secret that nobody has given, or that was taken away.
const NoVersion = "none"

// Version returns the version under which Envoy has a secret, by id, or that of one that is not there.
func (h Held) Version(id string) string { return secret{Given: h.Secrets[id].Given}.version() }

type HeldSecret struct {
	Digest string    `json:"digest"`
	Given  time.Time `json:"given"`
	Rests  bool      `json:"rests"` // whether it is on the disk as well
}

type secret struct {
	Value string    `json:"value"`
	Given time.Time `json:"given"`
	Rests bool      `json:"rests,omitempty"`
}

// version is shown by Envoy, so it says nothing of the value.
func (s secret) version() string {
	if s.Given.IsZero() {
		return NoVersion
	}
	return s.Given.UTC().Format(time.RFC3339Nano)
}

type secrets struct {
	now   func() time.Time
	kept  Kept
	mutex sync.Mutex
	all   map[string]secret
	turn  atomic.Uint64 // how often they have changed
}

// Kept are the files in which secrets outlive the signer, each as JSON. Either may be nil.
type Kept struct {
	Memory *os.File // all of them, until the container ends
	Disk   *os.File // those that outlive the container
}

// Resting is the file in the volume with the secrets that outlive the container.
func Resting(root string) string { return filepath.Join(root, "state", "secrets.json") }

// newSecrets returns those that a former signer has left. In a container that has just started it has left nothing in
// memory: then those on the disk are all.
func newSecrets(kept Kept, now func() time.Time) *secrets {
	restored := &secrets{now: now, kept: kept, all: map[string]secret{}}
	left := leftIn(kept.Memory)
	if len(left) == 0 {
		left = leftIn(kept.Disk)
	}
	var all map[string]secret
	if json.Unmarshal(left, &all) == nil && all != nil { // half of one is none
		restored.all = all
	}
	return restored
}

func leftIn(file *os.File) []byte {
	content, _ := io.ReadAll(io.NewSectionReader(file, 0, mostGiven*2)) // there is nothing in no file
	return content
}

// leave replaces the content of a file. What was there before is overwritten, and needs no room that it had not.
func leave(file *os.File, all map[string]secret) error {
	if file == nil {
		return nil
	}
	before, err := file.Stat()
	if err != nil || len(all) == 0 && before.Size() == 0 {
		return err
	}
	content, err := json.Marshal(all)
	if err != nil {
		return err
	}
	content = append(content, '\n')
	blanks := bytes.Repeat([]byte{' '}, max(0, int(before.Size())-len(content)))
	if _, err := file.WriteAt(append(content, blanks...), 0); err != nil {
		return errors.Join(err, file.Truncate(0)) // rather none than some of each
	}
	return cmp.Or(file.Sync(), file.Truncate(int64(len(content))))
}

func (s *secrets) of(asked string) (secret, bool) {
	id, ok := strings.CutPrefix(asked, SecretPrefix)
	if !ok || !secretID.MatchString(id) {
		return secret{}, false
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.all[id], true
}

func (s *secrets) issue(asked string, _ time.Time) (issued, error) {
	current, ok := s.of(asked)
	if !ok {
		return issued{}, errRefused
	}
	return issued{genericSecret(asked, current.Value), current.version(), stamp{issuer: current.version()}}, nil
}

func (s *secrets) isCurrent(asked string, before stamp, _ time.Time) bool {
	current, ok := s.of(asked)
	return ok && current.version() == before.issuer
}

func (s *secrets) count() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return len(s.all)
}

func (s *secrets) take(given Giving) (Held, error) {
	if len(given.Key) < sha256.Size {
		return Held{}, errors.New("the key is too short")
	}
	if err := verifyGiven(given.Give); err != nil {
		return Held{}, err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if given.Give != nil {
		if err := s.replace(given); err != nil {
			return Held{}, err
		}
	}
	held := Held{Secrets: map[string]HeldSecret{}}
	for id, entry := range s.all {
		sum := hmac.New(sha256.New, given.Key)
		fmt.Fprintf(sum, "%s\x00%s", id, entry.Value)
		held.Secrets[id] = HeldSecret{hex.EncodeToString(sum.Sum(nil)), entry.Given, entry.Rests}
	}
	return held, nil
}

func verifyGiven(all map[string]string) error {
	if len(all) > mostSecrets {
		return fmt.Errorf("%d secrets are more than %d", len(all), mostSecrets)
	}
	for id, value := range all {
		if !secretID.MatchString(id) {
			return fmt.Errorf("%q is no id of a secret", id)
		}
		if value == "" || len(value) > longestSecret || value != strings.TrimSpace(value) || strings.ContainsFunc(value, isNoHeader) {
			return fmt.Errorf("the secret %s can be in no header", id)
		}
	}
	return nil
}

func isNoHeader(character rune) bool { return character < ' ' || character > '~' }

// replace puts secrets in place of those there are. One that stays as it is keeps its version. What can't be kept for the
// next signer is in force all the same.
func (s *secrets) replace(giving Giving) error {
	fresh := map[string]secret{}
	for _, id := range giving.Keep {
		if before, ok := s.all[id]; ok {
			fresh[id] = before
		}
	}
	for id, value := range giving.Give {
		fresh[id] = secret{Value: value, Given: s.now().UTC()}
		if before, ok := s.all[id]; ok && before.Value == value {
			fresh[id] = before
		}
	}
	resting := map[string]secret{}
	for id, entry := range fresh {
		entry.Rests = slices.Contains(giving.Rest, id)
		if fresh[id] = entry; entry.Rests {
			resting[id] = entry
		}
	}
	if maps.Equal(fresh, s.all) {
		return nil
	}
	s.all = fresh
	s.turn.Add(1)
	// Both are written, whatever becomes of the other: neither may go on having what was taken away.
	var failed []error
	if err := leave(s.kept.Disk, resting); err != nil {
		failed = append(failed, fmt.Errorf("the secrets are in force, and will be gone when the container ends: %w", err))
	}
	if err := leave(s.kept.Memory, fresh); err != nil {
		failed = append(failed, fmt.Errorf("the secrets are in force, and will be gone when the signer ends: %w", err))
	}
	return errors.Join(failed...)
}

func (s *secrets) converse(connection net.Conn) {
	_ = connection.SetDeadline(time.Now().Add(givingTime))
	var given Giving
	answer, err := Held{}, json.NewDecoder(io.LimitReader(connection, mostGiven)).Decode(&given)
	if err == nil {
		answer, err = s.take(given)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	_ = json.NewEncoder(connection).Encode(answer) // a client that has gone needs no answer
}

// ReadGiving reads what the client sends, of so many octets. What it is is in no error.
func ReadGiving(size int64, from io.Reader) (Giving, error) {
	var giving Giving
	if size <= 0 || size > mostGiven {
		return giving, fmt.Errorf("%d octets are no secrets", size)
	}
	if err := json.NewDecoder(io.LimitReader(from, size)).Decode(&giving); err != nil {
		return Giving{}, errors.New("what was sent is not what gives secrets")
	}
	return giving, nil
}

// GiveSecrets passes on what the client has sent to the signer with this folder, and returns its answer.
func GiveSecrets(folder string, giving Giving) (Held, error) {
	var answer Held
	if err := statussocket.Ask(filepath.Join(folder, secretsSocket), 2*givingTime, giving, &answer); err != nil {
		return Held{}, fmt.Errorf("the signer does not answer: %w", err)
	}
	if answer.Error != "" {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}
