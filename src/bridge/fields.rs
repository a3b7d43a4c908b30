//! A JSON object whose values are kept as they were written.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The members of an object in their order, up to [`FIELDS_MAX`].
#[derive(Debug)]
pub(super) struct Fields<'a> {
    members: Vec<(String, &'a RawValue)>,
    /// Members beyond the limit.
    left_out: usize,
}

/// More than any object that is looked into has: 64 are a message's metadata.
pub(super) const FIELDS_MAX: usize = 64;

impl<'a> Fields<'a> {
    /// The value of `name`, unless it is missing or null.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.get_even_null(name).filter(|value| value.get() != "null")
    }

    /// The value of `name`, also if it is null.
    pub(super) fn get_even_null(&self, name: &str) -> Option<&'a RawValue> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The members in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// How many members the object has.
    pub(super) fn len(&self) -> usize {
        self.members.len() + self.left_out
    }

    /// The first member that is not one of `known` or stands there twice, if there is one.
    pub(super) fn first_beyond<'k, K>(&self, known: impl Fn() -> K) -> Option<&str>
    where
        K: Iterator<Item = &'k str>,
    {
        let mut names = self.iter().map(|(name, _)| name).enumerate();
        let is_beyond = |&(place, name): &(usize, &str)| {
            !known().any(|known| known == name) || self.stands_before(place, name)
        };
        names.find(is_beyond).map(|(_, name)| name)
    }

    /// The first name that stands there twice.
    pub(super) fn first_repeated(&self) -> Option<&str> {
        let mut names = self.iter().map(|(name, _)| name).enumerate();
        names.find(|&(place, name)| self.stands_before(place, name)).map(|(_, name)| name)
    }

    fn stands_before(&self, place: usize, name: &str) -> bool {
        self.iter().take(place).any(|(other, _)| other == name)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields { members: Vec::new(), left_out: 0 };
        while fields.members.len() < FIELDS_MAX {
            let Some(member) = map.next_entry()? else {
                return Ok(fields);
            };
            fields.members.push(member);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            fields.left_out += 1;
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn values_are_kept_as_they_were_written() {
        let fields = fields(r#"{"n": 12345678901234567890123, "nothing": null}"#);
        assert_eq!(fields.get("n").unwrap().get(), "12345678901234567890123");
        assert!(fields.get("nothing").is_none());
        assert_eq!(fields.get_even_null("nothing").unwrap().get(), "null");
        assert!(fields.get_even_null("absent").is_none());
    }

    #[test]
    fn members_beyond_the_limit_are_counted_only() {
        let members: Vec<String> = (0..1_000).map(|n| format!("\"{n}\":[]")).collect();
        let text = format!("{{{}}}", members.join(","));
        assert_eq!(fields(&text).iter().count(), FIELDS_MAX);
        assert_eq!(fields(&text).len(), 1_000);
    }

    #[test]
    fn strange_and_repeated_members_are_found() {
        assert_eq!(fields(r#"{"a":1,"b":2}"#).first_beyond(|| ["a", "b"].into_iter()), None);
        assert_eq!(fields(r#"{"a":1,"c":2}"#).first_beyond(|| ["a", "b"].into_iter()), Some("c"));
        assert_eq!(fields(r#"{"a":1,"a":2}"#).first_beyond(|| ["a", "b"].into_iter()), Some("a"));
        assert_eq!(fields(r#"{"a":1,"b":2,"b":3}"#).first_repeated(), Some("b"));
    }
}
