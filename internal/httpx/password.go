package httpx

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/hearth-metrics/hearth/internal/errs"
)

const (
	// noHash is compared with the password of a user that does not exist, so that it takes as long as with one that does.
	noHash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
	// maxWrong bounds how many wrong passwords and how many sources of them are remembered.
	maxWrong = 1000
	// suspicion is how long a source is suspect after a wrong password.
	suspicion = time.Minute
	// maxWaiting comparisons wait in a line, maxWaitingEach of one source.
	maxWaiting, maxWaitingEach = 64, 4
)

// verifier compares passwords with bcrypt hashes. A comparison takes a processor for a twentieth of a second or more,
// which makes it a thing that senders of wrong passwords could use up. So there are two lines, each with one comparison
// at a time: one for sources that sent a wrong password within the last minute, one for all others. In each the sources
// take turns, and who would have to wait long is refused with kind Limited. A user's right password is remembered, and
// needs no comparison; wrong ones never take the place of a right one.
type verifier struct {
	key           [sha256.Size]byte // of digests, random
	calm, suspect line

	mu      sync.Mutex                   // guards what follows
	right   map[string]digest            // by user: hash and password that were right last
	wrong   map[digest]struct{}          // user, hash and password
	failing map[passwordSource]time.Time // when it last sent a wrong password
}

type digest [sha256.Size]byte

// passwordSource is from where passwords come: an address, and the user if there is such a user. Who invents users is
// one source.
type passwordSource struct{ address, user string }

func newVerifier() *verifier {
	v := &verifier{right: map[string]digest{}, wrong: map[digest]struct{}{}, failing: map[passwordSource]time.Time{}}
	_, _ = rand.Read(v.key[:]) // it does not fail
	return v
}

// verify reports whether password is that of user, whose bcrypt hash is hash; known = false for a user that does not
// exist. The error, of kind Limited, says that there was no time to find out.
func (v *verifier) verify(ctx context.Context, address, user, hash string, known bool, password string) (bool, error) {
	from := passwordSource{address: address}
	if known {
		from.user = user
	} else {
		hash = noHash
	}
	d := v.digest(user, hash, password)
	if right, seen := v.remembered(user, d); seen {
		return right, nil
	}
	line := &v.calm
	if v.isSuspect(from) {
		line = &v.suspect
	}
	if err := line.enter(ctx, from); err != nil {
		return false, err
	}
	right, seen := v.remembered(user, d) // while we waited
	if !seen {
		right = bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil && known
	}
	line.leave()
	v.remember(from, user, d, right, known)
	return right, nil
}

func (v *verifier) digest(user, hash, password string) digest {
	return sha256.Sum256(fmt.Appendf(slices.Clone(v.key[:]), "%q %q %q", user, hash, password))
}

func (v *verifier) remembered(user string, d digest) (right, seen bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r, ok := v.right[user]; ok && r == d {
		return true, true
	}
	_, seen = v.wrong[d]
	return false, seen
}

func (v *verifier) isSuspect(from passwordSource) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	at, failed := v.failing[from]
	return failed && time.Since(at) < suspicion
}

func (v *verifier) remember(from passwordSource, user string, d digest, right, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if right {
		v.right[user] = d // one for each user of the file
		delete(v.failing, from)
		return
	}
	makeRoom(v.wrong)
	v.wrong[d] = struct{}{}
	if _, there := v.failing[from]; !there {
		makeRoom(v.failing)
	}
	v.failing[from] = time.Now()
}

// keepOnly forgets the right passwords of users that are no more.
func (v *verifier) keepOnly(users map[string]string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for user := range v.right {
		if _, ok := users[user]; !ok {
			delete(v.right, user)
		}
	}
}

// makeRoom removes any entry of a full memory.
func makeRoom[K comparable, V any](m map[K]V) {
	for k := range m {
		if len(m) < maxWrong {
			return
		}
		delete(m, k)
	}
}

// line lets one at a time through; sources take turns. The zero value is free.
type line struct {
	mu      sync.Mutex // guards what follows
	taken   bool
	waiting int
	order   []passwordSource // those with somebody waiting, next first
	queues  map[passwordSource][]chan struct{}
}

// enter waits for a turn, to be ended with leave. It does not wait when too many do.
func (l *line) enter(ctx context.Context, from passwordSource) error {
	l.mu.Lock()
	if !l.taken {
		l.taken = true
		l.mu.Unlock()
		return nil
	}
	if l.waiting >= maxWaiting || len(l.queues[from]) >= maxWaitingEach {
		l.mu.Unlock()
		return errs.WithRetryAfter(errs.E(errs.Limited, "too many passwords are being checked: try again"), time.Second)
	}
	turn := make(chan struct{})
	if l.queues == nil {
		l.queues = map[passwordSource][]chan struct{}{}
	}
	if len(l.queues[from]) == 0 {
		l.order = append(l.order, from)
	}
	l.queues[from] = append(l.queues[from], turn)
	l.waiting++
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	if !l.giveUp(from, turn) { // the turn came at the same moment
		l.leave()
	}
	return ctx.Err()
}

// giveUp reports whether turn was still waiting.
func (l *line) giveUp(from passwordSource, turn chan struct{}) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.queues[from], turn)
	if i < 0 {
		return false
	}
	l.waiting--
	l.queues[from] = slices.Delete(l.queues[from], i, i+1)
	if len(l.queues[from]) == 0 {
		delete(l.queues, from)
		l.order = slices.DeleteFunc(l.order, func(s passwordSource) bool { return s == from })
	}
	return true
}

// leave gives the turn to the next.
func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.order) == 0 {
		l.taken = false
		return
	}
	from := l.order[0]
	l.order = l.order[1:]
	l.waiting--
	q := l.queues[from]
	close(q[0])
	if len(q) == 1 {
		delete(l.queues, from)
		return
	}
	l.queues[from] = q[1:]
	l.order = append(l.order, from)
}
