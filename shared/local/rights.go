package local

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Right is a line of the README's table of rights: operations on a resource that some roles need on a cluster.
type Right struct {
	Roles      []string // coordinator, worker, and so on
	Side       string   // source or target
	For        string   // what it is for
	Resource   string   // as kafka-acls.sh names it: topic, group, cluster, transactional-id
	Name       string   // of the resource, with placeholders like <source>; one that ends in * is a prefix
	Operations []string // as kafka-acls.sh names them
}

var rightsRow = regexp.MustCompile("(?m)^\\| ([a-z, ]+) \\| (source|target) \\| ([^|]+) \\| `([a-z-]+) ?([^`]*)` \\| ([A-Za-z, ]+) \\|$")

// Rights reads the README's table.
func Rights(readme string) (all []Right, err error) {
	for _, row := range rightsRow.FindAllStringSubmatch(readme, -1) {
		all = append(all, Right{strings.Split(row[1], ", "), row[2], row[3], row[4], row[5], strings.Split(row[6], ", ")})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no table of rights")
	}
	return all, nil
}

func (r Right) String() string {
	return fmt.Sprintf("%s of %s on %s %s of the %s, for %s", strings.Join(r.Operations, ", "), strings.Join(r.Roles, " and "), r.Resource, r.Name, r.Side, r.For)
}

// ACLs are the right's for one user. Each placeholder stands for every one of its values.
func (r Right) ACLs(user string, values map[string][]string) (acls []kmsg.CreateACLsRequestCreation, err error) {
	names := []string{r.Name}
	for placeholder, all := range values {
		var filled []string
		for _, name := range names {
			for _, value := range all {
				filled = append(filled, strings.ReplaceAll(name, "<"+placeholder+">", value))
			}
		}
		slices.Sort(filled)
		names = slices.Compact(filled)
	}
	for _, name := range names {
		if strings.Contains(name, "<") {
			return nil, fmt.Errorf("nothing stands for the placeholder in %q", name)
		}
		for _, operation := range r.Operations {
			acl := kmsg.NewCreateACLsRequestCreation()
			acl.ResourceName, acl.ResourcePatternType = name, kmsg.ACLResourcePatternTypeLiteral
			if prefix, is := strings.CutSuffix(name, "*"); is {
				acl.ResourceName, acl.ResourcePatternType = prefix, kmsg.ACLResourcePatternTypePrefixed
			}
			if r.Resource == "cluster" {
				acl.ResourceName = "kafka-cluster"
			}
			acl.Principal, acl.Host, acl.PermissionType = "User:"+user, "*", kmsg.ACLPermissionTypeAllow
			if acl.ResourceType, err = kmsg.ParseACLResourceType(strings.ReplaceAll(r.Resource, "-", "_")); err != nil {
				return nil, err
			}
			if acl.Operation, err = kmsg.ParseACLOperation(operation); err != nil {
				return nil, err
			}
			acls = append(acls, acl)
		}
	}
	return acls, nil
}
