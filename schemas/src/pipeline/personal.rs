//! Personal data in text: `[clean.personal]`.
//!
//! Deliberately absent: names and addresses of people, which need a model and still err; and what stands in other fields.

use serde::{Deserialize, Serialize};

use crate::settings::{Invalid, check};

/// Which personal data is replaced, and by what.
///
/// The first three placeholders are Dolma's (Soldaini et al. 2024), which tokenizers of OLMo and ModernBERT have as tokens of
/// their own; the others are named alike. FineWeb writes `email@example.com` instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Personal {
    /// Kinds that are replaced; none leaves texts as they are. FineWeb replaces `email` and `ip`, Dolma `phone` too.
    pub replace: Vec<PersonalKind>,
    /// Stands for an e-mail address.
    pub email: String,
    /// Stands for a public IPv4 or IPv6 address.
    pub ip: String,
    /// Stands for a phone number.
    pub phone: String,
    /// Stands for the number of a payment card.
    pub card: String,
    /// Stands for an international bank account number.
    pub iban: String,
    /// Stands for the number of a Chinese resident identity card.
    pub identity: String,
}

/// A kind of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonalKind {
    /// E-mail addresses.
    Email,
    /// IPv4 and IPv6 addresses that are reachable from everywhere.
    Ip,
    /// Phone numbers: international, and national where their form is telling.
    Phone,
    /// Payment cards, by issuer and check digit (ISO/IEC 7812).
    Card,
    /// Bank accounts, by country and check digits (ISO 13616).
    Iban,
    /// Chinese resident identity numbers, by date and check digit (GB 11643).
    Identity,
}

impl Default for Personal {
    fn default() -> Self {
        Self {
            replace: Vec::new(),
            email: "|||EMAIL_ADDRESS|||".to_owned(),
            ip: "|||IP_ADDRESS|||".to_owned(),
            phone: "|||PHONE_NUMBER|||".to_owned(),
            card: "|||CARD_NUMBER|||".to_owned(),
            iban: "|||BANK_ACCOUNT|||".to_owned(),
            identity: "|||IDENTITY_NUMBER|||".to_owned(),
        }
    }
}

impl Personal {
    /// The placeholder of a kind.
    pub fn placeholder(&self, kind: PersonalKind) -> &str {
        match kind {
            PersonalKind::Email => &self.email,
            PersonalKind::Ip => &self.ip,
            PersonalKind::Phone => &self.phone,
            PersonalKind::Card => &self.card,
            PersonalKind::Iban => &self.iban,
            PersonalKind::Identity => &self.identity,
        }
    }

    /// Checks every placeholder; `key` is the table, such as `clean.personal`.
    pub fn validate(&self, key: &str) -> Result<(), Invalid> {
        let placeholders = [
            ("email", &self.email),
            ("ip", &self.ip),
            ("phone", &self.phone),
            ("card", &self.card),
            ("iban", &self.iban),
            ("identity", &self.identity),
        ];
        for (name, placeholder) in placeholders {
            let fits = (1..=64).contains(&placeholder.chars().count()) && !placeholder.contains(char::is_control);
            check(&format!("{key}.{name}"), placeholder, fits, "1 to 64 characters, no control characters")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_may_not_be_empty_or_break_lines() {
        for bad in ["", "a\nb"] {
            let settings = Personal { phone: bad.to_owned(), ..Personal::default() };
            let error = settings.validate("clean.personal").expect_err("placeholder");
            assert_eq!(error.key, "clean.personal.phone");
        }
        assert_eq!(Personal::default().validate("k"), Ok(()));
    }
}
