//! Words that are cut otherwise than their punctuation says: contractions, abbreviations, clock times, emoticons.
//!
//! The facts are those of spaCy's English rules, given here by how they are built. Pieces are separated by blanks. Every
//! entry with an apostrophe is also one with the typographic apostrophe.

use std::collections::BTreeMap;

/// A chunk of text and the byte lengths of its pieces.
pub(super) type Exceptions = BTreeMap<String, Vec<usize>>;

/// Words that look like a contraction without its apostrophe and mostly are none.
const NO_CONTRACTIONS: &str = "Ill ill Its its Hell hell Shell shell Shed shed were Were Well well Whore whore";

const PRONOUNS: [(&str, &str); 7] = [
    ("i", "'m m 'm+a m+a 'll ll 'll+'ve ll+ve 'd d 'd+'ve d+ve 've ve"),
    ("you", "'ll ll 'll+'ve ll+ve 'd d 'd+'ve d+ve 've ve 're re"),
    ("he", "'ll ll 'll+'ve ll+ve 'd d 'd+'ve d+ve 's s"),
    ("she", "'ll ll 'll+'ve ll+ve 'd d 'd+'ve d+ve 's s"),
    ("it", "'ll ll 'll+'ve ll+ve 'd d 'd+'ve d+ve 's s"),
    ("we", "'ll ll 'll+'ve ll+ve 'd d 'd+'ve d+ve 've ve 're re"),
    ("they", "'ll ll 'll+'ve ll+ve 'd d 'd+'ve d+ve 've ve 're re"),
];

const QUESTION_WORDS: &str = "who what when where why how there that this these those";
const NEGATED_WITH_HAVE: &str = "ca could do does did had may might must need ought sha should wo would";
const WITH_HAVE: &str = "could might must should would";
const NEGATED: &str = "ai are is was were have has dare";
const DROPPED_G: &str = "doin goin nothin nuthin ol somethin lovin havin";
const LEADING_APOSTROPHE: &str = "em ll nuff";

const PIECES: &str = "y'+all y+all how+'d+'y How+'d+'y not+'ve not+ve Not+'ve Not+ve can+not Can+not gon+na Gon+na got+ta Got+ta \
                      let+'s Let+'s c'm+on C'm+on";

const WHOLE: &str = "' \\\") <space> '' C++ ä. ö. ü. 'S 's ‘S ‘s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout ma'am Ma'am \
                     o'clock O'clock Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. \
                     Jan. Jul. Jun. Kan. Kans. Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. \
                     Nov. Oct. Okla. Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. Wis. 'd a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. \
                     E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. \
                     Rev. Sen. St. vs. v.s. \\t \\n —";

const EMOTICONS: &str = r":) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :((
    :-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* :-* :3
    :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V v_v V_V o_o
    o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.) (>_<) (*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\(ツ)/¯
    (╯°□°）╯︵┻━┻ ><(((*>";

/// All of them.
pub(super) fn exceptions() -> Exceptions {
    let mut list = Vec::new();
    for (pronoun, endings) in PRONOUNS {
        contract(&mut list, pronoun, endings);
    }
    for word in QUESTION_WORDS.split(' ') {
        contract(&mut list, word, "'ll ll 'll+'ve ll+ve 'd d 'd+'ve d+ve");
        if !matches!(word, "these" | "those") {
            contract(&mut list, word, "'s s");
        }
        if !matches!(word, "that" | "this") {
            contract(&mut list, word, "'re re 've ve");
        }
    }
    NEGATED_WITH_HAVE.split(' ').for_each(|word| contract(&mut list, word, "n't nt n't+'ve nt+ve"));
    WITH_HAVE.split(' ').for_each(|word| contract(&mut list, word, "'ve ve"));
    NEGATED.split(' ').for_each(|word| contract(&mut list, word, "n't nt"));
    list.retain(|pieces| !NO_CONTRACTIONS.split(' ').any(|word| word == pieces.concat()));
    for word in DROPPED_G.split(' ') {
        list.extend([word.to_owned(), title(word), format!("{word}'"), format!("{}'", title(word))].map(|word| vec![word]));
    }
    list.extend(LEADING_APOSTROPHE.split(' ').flat_map(|word| [vec![word.to_owned()], vec![format!("'{word}")]]));
    for hour in 1..=12 {
        list.extend(["a.m.", "am", "p.m.", "pm"].map(|half| vec![hour.to_string(), half.to_owned()]));
    }
    list.extend(PIECES.split_whitespace().map(|pieces| pieces.split('+').map(str::to_owned).collect()));
    list.extend(WHOLE.split_whitespace().chain(EMOTICONS.split_whitespace()).map(|word| vec![word.to_owned()]));
    list.extend(('a'..='z').map(|letter| vec![format!("{letter}.")]));
    list.extend("cfkCFK".chars().map(|unit| vec!["°".to_owned(), unit.to_string(), ".".to_owned()]));
    let typographic: Vec<Vec<String>> = list.iter().map(|pieces| pieces.iter().map(|piece| piece.replace('\'', "’")).collect()).collect();
    list.extend(typographic);
    list.into_iter().map(|pieces| (pieces.concat(), pieces.iter().map(String::len).collect())).collect()
}

/// A word with each of the endings, in lower case and with a capital.
fn contract(list: &mut Vec<Vec<String>>, word: &str, endings: &str) {
    for word in [word.to_owned(), title(word)] {
        for ending in endings.split(' ') {
            list.push(std::iter::once(word.clone()).chain(ending.split('+').map(str::to_owned)).collect());
        }
    }
}

fn title(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_is_the_sum_of_its_pieces_and_there_are_as_many_as_in_spacy() {
        let all = exceptions();
        assert!(all.iter().all(|(word, pieces)| pieces.iter().sum::<usize>() == word.len()));
        // spaCy 3.8 has 1,347; four of them are blanks, which are no words here.
        assert_eq!(all.len(), 1_343);
        assert_eq!(all["shouldn’t’ve"], [6, 5, 5]);
        assert_eq!(all["Id"], [1, 1]);
        assert!(!all.contains_key("well") && all.contains_key("we’ll"));
    }
}
