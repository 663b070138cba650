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
	// noHash is compared with the password for a user that does not exist. Without it, a faster refusal would show that
	// there is no such user.
	noHash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
	// maxWrong bounds how many wrong passwords are remembered, and how many sources of wrong passwords.
	maxWrong = 1000
	// suspicion is how long a source waits among the suspect ones after a wrong password.
	suspicion = time.Minute
	// maxWaiting is how many comparisons wait for a turn, and maxWaitingEach how many of one source.
	maxWaiting, maxWaitingEach = 64, 4
)

// verifier compares passwords with bcrypt hashes. A comparison takes a processor for a twentieth of a second or more,
// so senders of wrong passwords could use up the processors. Therefore comparisons are done one at a time in each of
// two queues: one for sources that sent a wrong password within the last minute, one for all others. In each queue the
// sources take turns. A request that would have to wait long is refused with kind Limited. The right password of a user
// is remembered and needs no comparison. A wrong password never replaces a right one in that memory.
type verifier struct {
	key             [sha256.Size]byte // of digests, random
	normal, suspect turns

	mu      sync.Mutex                   // guards what follows
	right   map[string]digest            // by user: hash and password that were right last
	wrong   map[digest]struct{}          // user, hash and password
	failing map[passwordSource]time.Time // when it last sent a wrong password
}

type digest [sha256.Size]byte

// passwordSource is where a password comes from: an address, and the user if that user exists. All invented users of an
// address are one source.
type passwordSource struct{ address, user string }

func newVerifier() *verifier {
	v := &verifier{right: map[string]digest{}, wrong: map[digest]struct{}{}, failing: map[passwordSource]time.Time{}}
	_, _ = rand.Read(v.key[:]) // it does not fail
	return v
}

// verify reports whether password is right for user, who has the bcrypt hash hash. known is false for a user that does
// not exist. The error is of kind Limited if too many comparisons wait, or the one of ctx.
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
	queue := &v.normal
	if v.isSuspect(from) {
		queue = &v.suspect
	}
	if err := queue.enter(ctx, from); err != nil {
		return false, err
	}
	right, seen := v.remembered(user, d) // another request may have found out during the wait
	if !seen {
		right = bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil && known
	}
	queue.leave()
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
		v.right[user] = d // its size is bounded: one for each user of the file
		delete(v.failing, from)
		return
	}
	evict(v.wrong)
	v.wrong[d] = struct{}{}
	if _, there := v.failing[from]; !there {
		evict(v.failing)
	}
	v.failing[from] = time.Now()
}

// keepOnly forgets the right passwords of users that do not exist any more.
func (v *verifier) keepOnly(users map[string]string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for user := range v.right {
		if _, ok := users[user]; !ok {
			delete(v.right, user)
		}
	}
}

// evict removes entries of m, whichever come first, until it has fewer than maxWrong.
func evict[K comparable, V any](m map[K]V) {
	for k := range m {
		if len(m) < maxWrong {
			return
		}
		delete(m, k)
	}
}

// turns lets one request run at a time. Sources take turns. The zero value is ready.
type turns struct {
	mu      sync.Mutex // guards what follows
	taken   bool
	waiting int
	order   []passwordSource // the sources with waiting requests, the next one first
	queues  map[passwordSource][]chan struct{}
}

// enter waits for a turn, which the caller ends with leave. It returns an error at once if too many wait already.
func (l *turns) enter(ctx context.Context, from passwordSource) error {
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
func (l *turns) giveUp(from passwordSource, turn chan struct{}) bool {
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

// leave ends the turn and gives it to the next source.
func (l *turns) leave() {
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
