package secret

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Hidden is what is shown instead of a secret.
const Hidden = "<secret>"

// Text is text that prints as Hidden, or as nothing when it is empty. It is a flag's value (Set, String).
type Text struct{ content string }

// New is a Text of content.
func New(content string) Text { return Text{content} }

// Set makes s the content.
func (t *Text) Set(s string) error {
	t.content = s
	return nil
}

// Reveal is the content. It must not be logged, shown, or put into an error.
func (t Text) Reveal() string { return t.content }

// String is Hidden, "" without content.
func (t Text) String() string {
	if t.content == "" {
		return ""
	}
	return Hidden
}

// Format prints String for every verb, also for verbs that show the fields of a value.
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue is String.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText is String, for JSON and YAML.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

var (
	mappingKey = regexp.MustCompile(`(?m)(?:^[ \t]*(?:- +)*|[{,][ \t]*)["']?([A-Za-z_][\w.-]*)["']?[ \t]*:(?:[ \t]|$)`)
	word       = regexp.MustCompile("[^\\s`'\"(),;:<>{}\\[\\]]+")
	userInfo   = regexp.MustCompile(`://[^/\s]+@`)
)

// Scrub is err without the words that are values in content, a YAML text that may have faults. It is needed since
// parsers quote values that they do not understand, and shorten them. The kind of err and the names of keys stay; the
// values of the keys in public are no secrets and stay too. The result unwraps to nothing, since that would show what
// Scrub took out. nil stays nil.
func Scrub(content []byte, err error, public ...string) error {
	if err == nil {
		return nil
	}
	keys := map[string]bool{}
	for _, m := range mappingKey.FindAllSubmatch(content, -1) {
		keys[string(m[1])] = true
	}
	for _, key := range public {
		for _, m := range regexp.MustCompile(regexp.QuoteMeta(key)+`:[ \t]*["']?(\w+)`).FindAllSubmatch(content, -1) {
			keys[string(m[1])] = true
		}
	}
	values := mappingKey.ReplaceAllString(string(content), "\n")
	whole := map[string]bool{}
	for _, v := range word.FindAllString(values, -1) {
		whole[strings.Trim(v, "*&!|>%@")] = true
	}
	text := word.ReplaceAllStringFunc(err.Error(), func(w string) string {
		bare := strings.TrimRight(w, ".…")
		switch {
		case bare == "" || keys[bare]:
			return w
		case whole[strings.Trim(bare, "*&!|>%@")], len(bare) >= 4 && strings.Contains(values, bare):
			return Hidden
		}
		return w
	})
	return errs.E(errs.KindOf(err), "%s", text)
}

// URLs is s with the user and the password of each URL in it hidden.
func URLs(s string) string { return userInfo.ReplaceAllString(s, "://"+Hidden+"@") }
